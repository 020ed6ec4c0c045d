"""How ``/api/generate`` and ``/api/chat`` answer: the bytes of their objects."""

from __future__ import annotations

from typing import TypedDict

from ollama_async.api import encode, ollama
from ollama_async.errors import ServerError
from ollama_async.gateway.stream import Ending

NDJSON_TYPE = "application/x-ndjson"


class GenerateVoice:
    """``model`` is called what the client called it."""

    content_type = NDJSON_TYPE

    def __init__(self, model: str) -> None:
        self._model = model
        self.piece = encode.Lines.generate(model).line

    def last(self, ending: Ending) -> bytes:
        return self.whole(ending) + b"\n"

    def whole(self, ending: Ending) -> bytes:
        return encode.to_json(
            ollama.GenerateResponse(
                model=self._model,
                created_at=encode.now(),
                response=ending.text,
                done=True,
                done_reason=ending.finish.reason,
                context=ending.finish.context,
                **_figures(ending),
            )
        )

    def error(self, error: ServerError) -> bytes:
        return encode.to_line(ollama.ErrorResponse(error.message))


class ChatVoice:
    """``model`` is called what the client called it."""

    content_type = NDJSON_TYPE

    def __init__(self, model: str) -> None:
        self._model = model
        self.piece = encode.Lines.chat(model).line

    def last(self, ending: Ending) -> bytes:
        return self.whole(ending) + b"\n"

    def whole(self, ending: Ending) -> bytes:
        return encode.to_json(
            ollama.ChatResponse(
                model=self._model,
                created_at=encode.now(),
                message=ollama.AnswerMessage(role="assistant", content=ending.text),
                done=True,
                done_reason=ending.finish.reason,
                **_figures(ending),
            )
        )

    def error(self, error: ServerError) -> bytes:
        return encode.to_line(ollama.ErrorResponse(error.message))


class _Figures(TypedDict):
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


def _figures(ending: Ending) -> _Figures:
    usage = ending.finish.usage
    return _Figures(
        total_duration=ending.total_ns,
        load_duration=ending.load_ns,
        prompt_eval_count=usage.prompt,
        prompt_eval_duration=usage.prompt_ns,
        eval_count=usage.answer,
        eval_duration=usage.answer_ns,
    )
