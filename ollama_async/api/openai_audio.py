"""OpenAI's ``/v1/audio/transcriptions``: a form with a recording, and its text."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

FILE_LIMIT_BYTES = 25 << 20
"""OpenAI's."""


class TranscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the form that mean something here."""

    body_limit_bytes: ClassVar[int] = FILE_LIMIT_BYTES + (1 << 20)

    file: bytes
    model: str
    language: str = ""
    prompt: str = ""
    response_format: str = "json"
    temperature: float = 0.0
    stream: bool = False


class TranscriptionUsage(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcription(msgspec.Struct, frozen=True):
    text: str
    usage: TranscriptionUsage


class TranscriptionDelta(
    msgspec.Struct, frozen=True, tag="transcript.text.delta", tag_field="type"
):
    """An event of a stream."""

    delta: str


class TranscriptionDone(msgspec.Struct, frozen=True, tag="transcript.text.done", tag_field="type"):
    """The last event of a stream."""

    text: str
    usage: TranscriptionUsage
