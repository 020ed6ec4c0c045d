"""Anthropic's protocol: the events, and the one object, with which ``/v1/messages`` answers.

A stream is ``message_start``, a ``ping``, for each block of content ``content_block_start``, deltas
and ``content_block_stop``, then ``message_delta`` and ``message_stop``. Blocks do not overlap: a
piece of another kind than the open block closes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from ollama_async.api import anthropic
from ollama_async.api.encode import to_event, to_json
from ollama_async.core.conversation import ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats import (
    SSE_TYPE,
    AnswerContent,
    Delta,
    FinalAnswer,
    SingleChoice,
    content_of,
)
from ollama_async.gateway.response_formats.errors import Protocol, error_object
from ollama_async.queue.backend import Finish, Start


class AnthropicFormat(SingleChoice):
    """``stop_sequences``: the request's. A stop string of the model ends a turn as usual.
    ``request_id``: for an error in the middle of a stream.
    """

    content_type = SSE_TYPE

    def __init__(self, model: str, stop_sequences: Collection[str], request_id: str) -> None:
        self._model = model
        self._request_id = request_id
        self._stop_sequences = stop_sequences
        self._index = 0
        self._open: type[anthropic.TextBlock | anthropic.ThinkingBlock] | None = None
        self._before = b""  # of the text in a delta of the open block

    # -- a stream ----------------------------------------------------------------------------------

    def begin(self, start: Start) -> bytes:
        message = self._message([], usage=_usage(start.prompt, start.cached, 0))
        return _event(anthropic.MessageStart(message)) + _event(anthropic.Ping())

    def text(self, text: str) -> bytes:
        opened = b"" if self._open is anthropic.TextBlock else self._open_text()
        return b"".join((opened, self._before, to_json(text), b"}}\n\n"))

    def content(self, content: AnswerContent) -> bytes:
        """Of one kind, since this protocol has no logprobs."""
        if content.tool_calls:
            return self._close() + b"".join(map(self._tool_use, content.tool_calls))
        opened = b"" if self._open is anthropic.ThinkingBlock else self._open_thinking()
        return b"".join((opened, self._before, to_json(content.thinking), b"}}\n\n"))

    def last(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        delta = anthropic.MessageDelta(*self._stop(answer))
        usage = _final_usage(answer.finish)
        return b"".join(
            (
                self._close(),
                _event(anthropic.MessageDeltaEvent(delta, usage)),
                _event(anthropic.MessageStop()),
            )
        )

    def error(self, error: ServerError) -> bytes:
        return to_event(error_object(Protocol.ANTHROPIC, error, self._request_id), "error")

    # -- one object --------------------------------------------------------------------------------

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        content = [*_blocks(answer.content.deltas)]
        stop_reason, stop_sequence = self._stop(answer)
        usage = _final_usage(answer.finish)
        return to_json(self._message(content, stop_reason, stop_sequence, usage=usage))

    # -- private -----------------------------------------------------------------------------------

    def _message(
        self,
        content: list[anthropic.AnswerBlock],
        stop_reason: anthropic.StopReason | None = None,
        stop_sequence: str | None = None,
        *,
        usage: anthropic.Usage,
    ) -> anthropic.MessagesResponse:
        return anthropic.MessagesResponse(
            id=_message_id(),
            model=self._model,
            content=content,
            stop_reason=stop_reason,
            stop_sequence=stop_sequence,
            usage=usage,
        )

    def _stop(self, answer: FinalAnswer) -> tuple[anthropic.StopReason, str | None]:
        """Why the answer ended, and the stop sequence that ended it.

        Calls that the limit left complete are still in the message; but the turn is not over.
        """
        if answer.finish.reason == "length":
            return "max_tokens", None
        if answer.has_calls:
            return "tool_use", None
        stop_string = answer.finish.stop_string
        if stop_string and stop_string in self._stop_sequences:
            return "stop_sequence", stop_string
        return "end_turn", None

    def _open_text(self) -> bytes:
        closed = self._close()
        self._open = anthropic.TextBlock
        self._before = self._before_delta(b'"text_delta","text":')
        return closed + _event(anthropic.ContentBlockStart(self._index, anthropic.TextBlock("")))

    def _open_thinking(self) -> bytes:
        closed = self._close()
        self._open = anthropic.ThinkingBlock
        self._before = self._before_delta(b'"thinking_delta","thinking":')
        block = anthropic.ThinkingBlock("")
        return closed + _event(anthropic.ContentBlockStart(self._index, block))

    def _before_delta(self, fields: bytes) -> bytes:
        """All of a ``content_block_delta`` that precedes its text, which is all that changes."""
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":%b' % (self._index, fields)
        )

    def _close(self) -> bytes:
        """End the open block, if there is one."""
        if self._open is None:
            return b""
        events: list[anthropic.Event] = []
        if self._open is anthropic.ThinkingBlock:
            signature = anthropic.SignatureDelta(_signature())
            events.append(anthropic.ContentBlockDelta(self._index, signature))
        events.append(anthropic.ContentBlockStop(self._index))
        self._open = None
        self._index += 1
        return b"".join(map(_event, events))

    def _tool_use(self, call: ToolCall) -> bytes:
        index, function = self._index, call.function
        self._index += 1
        arguments = to_json(function.arguments).decode()
        block = anthropic.ToolUseBlock(call.id, function.name, {})
        return b"".join(
            (
                _event(anthropic.ContentBlockStart(index, block)),
                _event(anthropic.ContentBlockDelta(index, anthropic.InputJsonDelta(arguments))),
                _event(anthropic.ContentBlockStop(index)),
            )
        )


class TokenCountFormat(AnthropicFormat):
    """For ``/v1/messages/count_tokens``: the number of the prompt's tokens, cached or not."""

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        return to_json(anthropic.CountTokensResponse(answer.finish.usage.prompt))


def _blocks(deltas: Sequence[Delta]) -> Iterator[anthropic.AnswerBlock]:
    """What a stream of these deltas would amount to."""
    for _, run in groupby(deltas, key=type):
        content = content_of(list(run))
        if content.thinking:
            yield anthropic.ThinkingBlock(content.thinking, _signature())
        if content.text:
            yield anthropic.TextBlock(content.text)
        for call in content.tool_calls:
            yield anthropic.ToolUseBlock(call.id, call.function.name, call.function.arguments)


def _event(event: anthropic.Event) -> bytes:
    return to_event(event, str(event.__struct_config__.tag))


def _message_id() -> str:
    return f"msg_{secrets.token_hex(12)}"


def _signature() -> str:
    """Anthropic's clients send thinking back with its signature, whatever that is. Nothing checks
    it: a client may write any history.
    """
    return secrets.token_urlsafe(24)


def _final_usage(finish: Finish) -> anthropic.Usage:
    return _usage(finish.usage.prompt, finish.usage.cached, finish.usage.answer)


def _usage(prompt: int, cached: int, answer: int) -> anthropic.Usage:
    """In Anthropic's terms, ``input_tokens`` are those that had to be computed."""
    return anthropic.Usage(
        input_tokens=prompt - cached,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=cached,
        output_tokens=answer,
    )
