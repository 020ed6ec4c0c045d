"""How ``/api/generate`` and ``/api/chat`` answer: the bytes of their objects."""

from __future__ import annotations

from typing import TypedDict

from ollama_async.api import encode, ollama
from ollama_async.core.conversation import ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats import AnswerContent
from ollama_async.gateway.streaming import FinalAnswer

NDJSON_TYPE = "application/x-ndjson"


class _Native:
    """What both have in common. ``model`` is called what the client called it."""

    content_type = NDJSON_TYPE

    def __init__(self, model: str, text: encode.Lines, thinking: encode.Lines) -> None:
        self._model = model
        self.piece = text.line
        self.thought = thinking.line

    def last(self, ending: FinalAnswer) -> bytes:
        return self.whole(ending) + b"\n"

    def whole(self, ending: FinalAnswer) -> bytes:
        raise NotImplementedError

    def error(self, error: ServerError) -> bytes:
        return encode.to_line(ollama.ErrorResponse(error.message))


class OllamaGenerateFormat(_Native):
    def __init__(self, model: str) -> None:
        lines = encode.Lines
        super().__init__(model, lines.generate(model), lines.generate_thinking(model))

    def calls(self, calls: list[ToolCall]) -> bytes:
        return encode.to_line(
            ollama.GenerateResponse(
                model=self._model,
                created_at=encode.now(),
                response="",
                done=False,
                tool_calls=_wire(calls),
            )
        )

    def whole(self, ending: FinalAnswer) -> bytes:
        said = ending.said
        return encode.to_json(
            ollama.GenerateResponse(
                model=self._model,
                created_at=encode.now(),
                response=said.content,
                thinking=said.thinking,
                done=True,
                done_reason=ending.finish.reason,
                context=ending.finish.context,
                tool_calls=_wire(said.calls),
                **_figures(ending),
            )
        )


class OllamaChatFormat(_Native):
    def __init__(self, model: str) -> None:
        lines = encode.Lines
        super().__init__(model, lines.chat(model), lines.chat_thinking(model))

    def calls(self, calls: list[ToolCall]) -> bytes:
        return encode.to_line(
            ollama.ChatResponse(
                model=self._model,
                created_at=encode.now(),
                message=_message(AnswerContent(calls=calls)),
                done=False,
            )
        )

    def whole(self, ending: FinalAnswer) -> bytes:
        return encode.to_json(
            ollama.ChatResponse(
                model=self._model,
                created_at=encode.now(),
                message=_message(ending.said),
                done=True,
                done_reason=ending.finish.reason,
                **_figures(ending),
            )
        )


class OllamaRenderedGenerateFormat(OllamaGenerateFormat):
    """The content is the prompt itself (``_debug_render_only``)."""

    def whole(self, ending: FinalAnswer) -> bytes:
        return encode.to_json(
            ollama.GenerateResponse(
                model=self._model,
                created_at=encode.now(),
                response="",
                done=False,
                debug_info=ollama.DebugInfo(ending.said.content),
            )
        )


class OllamaRenderedChatFormat(OllamaChatFormat):
    """As :class:`OllamaRenderedGenerateFormat`; nobody has said anything, so the message has no role."""

    def whole(self, ending: FinalAnswer) -> bytes:
        return encode.to_json(
            ollama.ChatResponse(
                model=self._model,
                created_at=encode.now(),
                message=ollama.AnswerMessage(role="", content=""),
                done=False,
                debug_info=ollama.DebugInfo(ending.said.content),
            )
        )


def _message(said: AnswerContent) -> ollama.AnswerMessage:
    return ollama.AnswerMessage(
        role="assistant",
        content=said.content,
        thinking=said.thinking,
        tool_calls=_wire(said.calls),
    )


def _wire(calls: list[ToolCall]) -> list[ollama.AnswerCall]:
    return [
        ollama.AnswerCall(
            call.id,
            ollama.AnswerFunction(call.function.index, call.function.name, call.function.arguments),
        )
        for call in calls
    ]


class _Figures(TypedDict):
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


def _figures(ending: FinalAnswer) -> _Figures:
    usage = ending.finish.usage
    return _Figures(
        total_duration=ending.total_ns,
        load_duration=ending.load_ns,
        prompt_eval_count=usage.prompt,
        prompt_eval_duration=usage.prompt_ns,
        eval_count=usage.answer,
        eval_duration=usage.answer_ns,
    )
