"""How client protocols write answers: the contract, with one module per protocol.

:mod:`~ollama_async.gateway.streaming` and :mod:`~ollama_async.gateway.response_stream` know only
what is defined here. Errors before an answer begins: :mod:`.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Protocol

import msgspec

from ollama_async.core.conversation import Logprobs, Part, Thought, TokenLogprob, ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.queue.backend import Finish, Start

Delta = str | Part
"""The next piece of an answer: text, or another part."""

JSON_TYPE = "application/json; charset=utf-8"
NDJSON_TYPE = "application/x-ndjson"
SSE_TYPE = "text/event-stream"


class AnswerContent(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or a part of it. ``tool_calls`` are in order and have their numbers and ids.

    ``logprobs`` is None if they were not requested. ``deltas``: the same in the order in which it
    came.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []
    logprobs: list[TokenLogprob] | None = None
    deltas: Sequence[Delta] = ()


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
    of a stream and is sent with it. ``text`` gives whole objects of the stream, with their
    separators, for a piece that is text alone, and ``content`` for one with anything else. An
    answer's last piece is followed by ``ended``, and that of all answers by ``last``. It ends the
    stream, as ``error`` does. ``whole`` is the one JSON object without streaming, or something else
    of the ``whole_type``.
    """

    content_type: str
    whole_type: str

    def begin(self, start: Start) -> bytes: ...

    def text(self, text: str, /) -> bytes: ...

    def content(self, content: AnswerContent, /) -> bytes:
        """Without logprobs it is of one kind; with them it may have nothing else."""

    def choice(self, index: int) -> ResponseFormat:
        """What writes the deltas of this choice's answer; of choice 0, the format itself."""

    def ended(self, answer: FinalAnswer, /) -> bytes:
        """Its durations are left out."""

    def last(self, answers: Sequence[FinalAnswer]) -> bytes: ...

    def error(self, error: ServerError) -> bytes: ...

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes | bytearray: ...


class SingleChoice:
    """For formats whose responses have one answer, and whose streams begin with its text."""

    whole_type = JSON_TYPE

    def begin(self, start: Start) -> bytes:  # noqa: ARG002  # the contract's
        return b""

    def choice(self, index: int) -> ResponseFormat:
        raise NotImplementedError(f"choice {index} of a response with one answer")

    def ended(self, answer: FinalAnswer, /) -> bytes:  # noqa: ARG002  # ``last`` says it
        return b""


def content_of(deltas: Sequence[Delta]) -> AnswerContent:
    logprobs = [token for delta in deltas if isinstance(delta, Logprobs) for token in delta.tokens]
    return AnswerContent(
        text="".join(delta for delta in deltas if isinstance(delta, str)),
        thinking="".join(delta.text for delta in deltas if isinstance(delta, Thought)),
        tool_calls=[delta for delta in deltas if isinstance(delta, ToolCall)],
        logprobs=logprobs or None,
        deltas=deltas,
    )


def write_deltas(response_format: ResponseFormat, deltas: Sequence[Delta]) -> Iterator[bytes]:
    """One object for neighbours of one kind; with logprobs, one for what came of each token."""
    at = 0
    starts = [index for index, delta in enumerate(deltas) if isinstance(delta, Logprobs)]
    for start, end in pairwise([*starts, len(deltas)]):
        yield from _write_runs(response_format, deltas[at:start])
        yield response_format.content(content_of(deltas[start:end]))
        at = end
    yield from _write_runs(response_format, deltas[at:])


def _write_runs(response_format: ResponseFormat, deltas: Sequence[Delta]) -> Iterator[bytes]:
    for _, run in groupby(deltas, key=type):
        content = content_of(list(run))
        if content.text:
            yield response_format.text(content.text)
        elif content.thinking or content.tool_calls:
            yield response_format.content(content)
