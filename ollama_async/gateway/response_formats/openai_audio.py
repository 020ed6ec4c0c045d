"""The bytes with which ``/v1/audio/transcriptions`` answers: an object, plain text, or events."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.api import encode
from ollama_async.api.openai_audio import (
    Transcription,
    TranscriptionDelta,
    TranscriptionDone,
    TranscriptionUsage,
)
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats import (
    JSON_TYPE,
    SSE_TYPE,
    AnswerContent,
    FinalAnswer,
    SingleChoice,
)
from ollama_async.gateway.response_formats.errors import Protocol, error_object

TEXT_TYPE = "text/plain; charset=utf-8"


class TranscriptionFormat(SingleChoice):
    """``is_text``: without streaming, the text alone and not an object."""

    content_type = SSE_TYPE

    def __init__(self, *, is_text: bool) -> None:
        self._is_text = is_text
        self.whole_type = TEXT_TYPE if is_text else JSON_TYPE
        self._parts: list[str] = []

    def text(self, text: str, /) -> bytes:
        self._parts.append(text)
        return encode.to_event(TranscriptionDelta(text))

    def content(self, content: AnswerContent, /) -> bytes:
        return self.text(content.text) if content.text else b""

    def last(self, answers: Sequence[FinalAnswer]) -> bytes:
        return encode.to_event(TranscriptionDone("".join(self._parts), _usage(answers[0])))

    def error(self, error: ServerError) -> bytes:
        return encode.to_event(error_object(Protocol.OPENAI, error))

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        text = answers[0].content.text.strip()
        if self._is_text:
            return f"{text}\n".encode(errors="replace")
        return encode.to_json(Transcription(text, _usage(answers[0])))


def _usage(answer: FinalAnswer) -> TranscriptionUsage:
    usage = answer.finish.usage
    return TranscriptionUsage(
        input_tokens=usage.prompt,
        output_tokens=usage.answer,
        total_tokens=usage.prompt + usage.answer,
    )
