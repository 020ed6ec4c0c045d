"""How client protocols write answers: the contract, with one module per protocol.

:mod:`~ollama_async.gateway.streaming` and :mod:`~ollama_async.gateway.response_stream` know only
what is defined here. Errors before an answer begins: :mod:`.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ollama_async.core.conversation import Part, TokenLogprob, ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.queue.backend import Finish, Start

Delta = str | Part
"""The next piece of an answer: text, or another part."""

NDJSON_TYPE = "application/x-ndjson"
SSE_TYPE = "text/event-stream"


class AnswerContent(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or a part of it. ``tool_calls`` are in order and have their numbers and ids.

    ``logprobs`` is None if they were not requested.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []
    logprobs: list[TokenLogprob] | None = None


class FinalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an answer. Durations in nanoseconds; 0: left out.

    ``content`` is the whole answer without streaming, and empty with it. ``has_calls``: there were
    tool calls in it, also with streaming.
    """

    finish: Finish
    content: AnswerContent = AnswerContent()
    has_calls: bool = False
    load_ns: int = 0
    total_ns: int = 0


class ResponseFormat(Protocol):
    """How one protocol writes one response, which has an answer for each of the request's choices.

    An instance belongs to one response and may keep its state. ``begin`` precedes the first delta
    of a stream and is sent with it. ``text``, ``thinking``, ``tool_calls`` and ``tokens`` each give
    whole objects of the stream, with their separators. ``last`` ends it. ``whole`` is the one JSON
    object without streaming.
    """

    content_type: str
    text: Callable[[str], bytes]
    thinking: Callable[[str], bytes]

    def begin(self, start: Start) -> bytes: ...

    def tool_calls(self, calls: list[ToolCall]) -> bytes: ...

    def tokens(self, content: AnswerContent) -> bytes:
        """A piece of an answer with logprobs, which may be all that it has."""

    def choice(self, index: int) -> ResponseFormat:
        """What writes the deltas of this choice's answer; of choice 0, the format itself."""

    def last(self, answers: Sequence[FinalAnswer]) -> bytes: ...

    def error(self, error: ServerError) -> bytes: ...

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes: ...


class SingleChoice:
    """For formats whose responses have one answer, and whose streams begin with its text."""

    def begin(self, start: Start) -> bytes:  # noqa: ARG002  # the contract's
        return b""

    def choice(self, index: int) -> ResponseFormat:
        raise NotImplementedError(f"choice {index} of a response with one answer")
