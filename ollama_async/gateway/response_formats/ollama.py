"""Ollama's protocol: the bytes with which ``/api/generate`` and ``/api/chat`` answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from ollama_async.api import encode, ollama
from ollama_async.core.conversation import TokenLogprob, ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats import (
    NDJSON_TYPE,
    AnswerContent,
    FinalAnswer,
    SingleChoice,
)
from ollama_async.gateway.response_formats.errors import Protocol, error_object
from ollama_async.gateway.response_formats.logprobs import logprob_json


class OllamaFormat(SingleChoice):
    """What both routes have in common. ``model`` is the name that the client used.

    ``renders_only`` (``_debug_render_only``): the content of the answer is the prompt itself, for
    which ``image_count`` images came.
    """

    content_type = NDJSON_TYPE
    _response: ClassVar[type[ollama.GenerateResponse] | type[ollama.ChatResponse]]
    _before_text: ClassVar[bytes]
    _before_thinking: ClassVar[bytes]
    _after: ClassVar[bytes]

    def __init__(self, model: str, *, renders_only: bool = False, image_count: int = 0) -> None:
        self._model = model
        self._renders_only = renders_only
        self._image_count = image_count
        self.text = self._line(self._before_text)
        self._thinking = self._line(self._before_thinking)

    def content(self, content: AnswerContent, /) -> bytes:
        if content.thinking and content.logprobs is None:
            return self._thinking(content.thinking)
        logprobs = _answer_logprobs(content.logprobs)
        return self._object(**self._fields(content), done=False, logprobs=logprobs) + b"\n"

    def last(self, answers: Sequence[FinalAnswer]) -> bytes:
        return self.whole(answers) + b"\n"

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        if self._renders_only:
            debug_info = ollama.DebugInfo(answer.content.text, self._image_count)
            return self._object(**self._nothing(), done=False, debug_info=debug_info)
        return self._object(
            **self._fields(answer.content),
            done=True,
            done_reason=answer.finish.reason,
            logprobs=_answer_logprobs(answer.content.logprobs),
            **self._figures(answer),
        )

    def error(self, error: ServerError) -> bytes:
        return encode.to_line(error_object(Protocol.OLLAMA, error))

    def _fields(self, content: AnswerContent) -> dict[str, Any]:
        """What a response says with this content."""
        raise NotImplementedError

    def _nothing(self) -> dict[str, Any]:
        """The same of one that shows the prompt instead."""
        raise NotImplementedError

    def _figures(self, answer: FinalAnswer) -> dict[str, Any]:
        """What the last object has besides the content."""
        usage = answer.finish.usage
        return {
            "total_duration": answer.total_ns,
            "load_duration": answer.load_ns,
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": usage.prompt_ns,
            "eval_count": usage.answer,
            "eval_duration": usage.answer_ns,
        }

    def _line(self, before: bytes) -> Callable[[str], bytes]:
        """A function that makes one NDJSON line of a text and nothing else, in about 0.5 µs."""
        stamp, to_json, after = encode.token_stamp, encode.to_json, self._after
        head = b'{"model":' + to_json(self._model) + b',"created_at":"'

        def line(text: str) -> bytes:
            return b"".join((head, stamp(), before, to_json(text), after))

        return line

    def _object(self, **fields: Any) -> bytes:
        return encode.to_json(self._response(model=self._model, created_at=encode.now(), **fields))


class OllamaGenerateFormat(OllamaFormat):
    _response = ollama.GenerateResponse
    _before_text = b'","response":'
    _before_thinking = b'","response":"","thinking":'
    _after = b',"done":false}\n'

    def _fields(self, content: AnswerContent) -> dict[str, Any]:
        return {
            "response": content.text,
            "thinking": content.thinking,
            "tool_calls": _answer_calls(content.tool_calls),
        }

    def _nothing(self) -> dict[str, Any]:
        return {"response": ""}

    def _figures(self, answer: FinalAnswer) -> dict[str, Any]:
        return super()._figures(answer) | {"context": answer.finish.context}


class OllamaChatFormat(OllamaFormat):
    _response = ollama.ChatResponse
    _before_text = b'","message":{"role":"assistant","content":'
    _before_thinking = _before_text + b'"","thinking":'
    _after = b'},"done":false}\n'

    def _fields(self, content: AnswerContent) -> dict[str, Any]:
        message = ollama.AnswerMessage(
            role="assistant",
            content=content.text,
            thinking=content.thinking,
            tool_calls=_answer_calls(content.tool_calls),
        )
        return {"message": message}

    def _nothing(self) -> dict[str, Any]:
        return {"message": ollama.AnswerMessage(role="", content="")}


class TokenizeFormat(OllamaGenerateFormat):
    """Of ``/api/tokenize``, without streaming."""

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        return encode.to_json(
            ollama.TokenizeResponse(
                model=self._model,
                tokens=answer.finish.context,
                total_duration=answer.total_ns,
                load_duration=answer.load_ns,
            )
        )


class DetokenizeFormat(OllamaGenerateFormat):
    """Of ``/api/detokenize``, without streaming."""

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        return encode.to_json(
            ollama.DetokenizeResponse(
                model=self._model,
                text=answer.content.text,
                total_duration=answer.total_ns,
                load_duration=answer.load_ns,
            )
        )


def _answer_calls(calls: list[ToolCall]) -> list[ollama.AnswerCall]:
    return [
        ollama.AnswerCall(
            call.id,
            ollama.AnswerFunction(call.function.index, call.function.name, call.function.arguments),
        )
        for call in calls
    ]


def _answer_logprobs(logprobs: list[TokenLogprob] | None) -> list[msgspec.Raw]:
    return [logprob_json(each, lists_none=False) for each in logprobs or ()]
