"""OpenAI's ``/v1/responses``: the object of an answer, and the events of its stream.

An answer becomes a list of items: what the model thought, a message, tool calls. Text after calls
is another message. ::

    response.created, response.in_progress
      output_item.added, reasoning_summary_part.added, reasoning_summary_text.delta …,
        reasoning_summary_text.done, reasoning_summary_part.done, output_item.done
      output_item.added, content_part.added, output_text.delta …,
        output_text.done, content_part.done, output_item.done
      output_item.added, function_call_arguments.delta, .done, output_item.done
    response.completed | response.incomplete | error, response.failed

Each ``done`` repeats a whole text; it is encoded once. Without streaming an answer takes the same
way, without its events.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from io import StringIO
from itertools import count
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from ollama_async.api import encode
from ollama_async.api import openai_response_events as events
from ollama_async.api import openai_responses as api
from ollama_async.api.openai import Logprob
from ollama_async.core.conversation import TokenLogprob, ToolCall, Usage
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats import (
    SSE_TYPE,
    AnswerContent,
    FinalAnswer,
    SingleChoice,
    write_deltas,
)
from ollama_async.gateway.response_formats.openai import answer_logprobs
from ollama_async.queue.backend import Start

T = TypeVar("T")

LOGPROBS_LIMIT_BYTES = 4 << 20
"""Of a message in a stream. Its last events, which repeat them four times, leave out more."""

OPEN_LIMIT_BYTES = 64 << 10
"""Of an item that an error cut off: a longer one is left out of the failed response, since the
stream has said it, and the end of an error is written at once."""

Keep = Callable[[bytes, list[str]], None]
"""Gets a finished response in JSON and the ids of its items. It may be called in any thread."""


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def encoded(value: T) -> T:
    """``value``, encoded now: what contains it several times copies its bytes."""
    return cast("T", msgspec.Raw(encode.to_json(value)))


def encoded_logprobs(logprobs: list[bytes]) -> list[Logprob]:
    """Likewise, of values that are encoded already."""
    return cast("list[Logprob]", msgspec.Raw(b"[%b]" % b",".join(logprobs)))


_REPEATED = (
    *("instructions", "tools", "tool_choice", "text", "reasoning", "metadata"),
    *("user", "safety_identifier", "prompt_cache_key"),
)
"""What each event with the response repeats of the request, and may be large."""


class OpenAIResponsesFormat(SingleChoice):
    """``response``: what is known of it before the model begins. ``keep`` stores it."""

    content_type = SSE_TYPE

    def __init__(
        self, response: api.Response, *, is_streamed: bool, keep: Keep | None = None
    ) -> None:
        repeated = {name: encoded(getattr(response, name)) for name in _REPEATED}
        self._response = msgspec.structs.replace(response, **repeated)
        self.is_streamed = is_streamed
        self._keep = keep
        self.number = count().__next__
        """The ``sequence_number`` of the next event."""
        self._output: list[api.OutputItem] = []
        self._ids: list[str] = []
        self._has_answer = False  # a message or a call
        self._open: _OpenItem | None = None
        self._tokens: list[TokenLogprob] = []  # whose text is still held back, if they have one

    # -- the contract ----------------------------------------------------------------------------

    def begin(self, start: Start) -> bytes:  # noqa: ARG002  # the contract's
        return self.event(events.ResponseCreated, response=self._response) + self.event(
            events.ResponseInProgress, response=self._response
        )

    def text(self, text: str) -> bytes:
        if isinstance(self._open, _OpenMessage):
            return self._open.delta(text)
        return self._open_item(_OpenMessage) + self.text(text)

    def content(self, content: AnswerContent) -> bytes:
        """Only text has logprobs: those of other tokens are dropped."""
        self._tokens += content.logprobs or ()
        written = b""
        if content.thinking:
            written += self._thinking(content.thinking)
        if content.text:
            written += self._text_with_logprobs(content.text)
        if content.tool_calls:
            written += b"".join((*self._close(), *map(self._call, content.tool_calls)))
        if content.thinking or content.text or content.tool_calls:
            self._tokens = []
        return written

    def last(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        written, response = self._finish(answer)
        is_complete = response.status == "completed"
        event = events.ResponseCompleted if is_complete else events.ResponseIncomplete
        return b"".join((*written, self.event(event, response=self._kept(response))))

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        for _ in write_deltas(self, answer.content.deltas):
            pass
        _, response = self._finish(answer)
        return bytes(cast("msgspec.Raw", self._kept(response)))

    def error(self, error: ServerError) -> bytes:
        """With the items so far. One that is open has no end of its own."""
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        if self._open is not None and self._open.size <= OPEN_LIMIT_BYTES:
            self._add(self._open.id, self._open.cut_off(), is_answer=True)
        response = msgspec.structs.replace(
            self._response,
            status="failed",
            error=api.ResponseError(code, error.message),
            output=self._output,
        )
        return self.event(events.ErrorEvent, code=code, message=error.message) + self.event(
            events.ResponseFailed, response=self._kept(response)
        )

    # -- events and items ------------------------------------------------------------------------

    def event(self, kind: type[msgspec.Struct], **fields: Any) -> bytes:
        """Nothing without streaming."""
        if not self.is_streamed:
            return b""
        return encode.to_event(kind(sequence_number=self.number(), **fields), tag_of(kind))

    def _thinking(self, text: str) -> bytes:
        if isinstance(self._open, _OpenReasoning):
            return self._open.delta(text)
        return self._open_item(_OpenReasoning) + self._thinking(text)

    def _text_with_logprobs(self, text: str) -> bytes:
        if isinstance(self._open, _OpenMessage):
            tokens = _last_tokens(self._tokens, len(text.encode()))
            return self._open.delta_with_logprobs(text, tokens)
        return self._open_item(_OpenMessage) + self._text_with_logprobs(text)

    def _open_item(self, kind: type[_OpenMessage | _OpenReasoning]) -> bytes:
        """Close what is open, and open an item of this kind."""
        written = self._close()
        self._open = kind(self, len(self._output))
        return b"".join((*written, self._open.begin()))

    def _close(self, status: str = "completed") -> tuple[bytes, ...]:
        """End the open item, if there is one."""
        if self._open is None:
            return ()
        written, item = self._open.end(status)
        self._add(self._open.id, item, is_answer=isinstance(self._open, _OpenMessage))
        self._open = None
        return written

    def _call(self, call: ToolCall) -> bytes:
        item = api.FunctionCallItem(
            id=new_id("fc"),
            status="in_progress",
            call_id=call.id or new_id("call"),
            name=call.function.name,
            arguments="",
        )
        arguments = encoded(encode.to_json(call.function.arguments).decode())
        place = {"output_index": len(self._output)}
        done = encoded(msgspec.structs.replace(item, status="completed", arguments=arguments))
        self._add(item.id, done, is_answer=True)
        return b"".join(
            (
                self.event(events.ItemAdded, item=item, **place),
                self.event(events.ArgumentsDelta, item_id=item.id, delta=arguments, **place),
                self.event(
                    events.ArgumentsDone,
                    item_id=item.id,
                    name=item.name,
                    arguments=arguments,
                    **place,
                ),
                self.event(events.ItemDone, item=done, **place),
            )
        )

    def _add(self, item_id: str, item: api.OutputItem, *, is_answer: bool) -> None:
        self._ids.append(item_id)
        self._output.append(item)
        self._has_answer = self._has_answer or is_answer

    def _finish(self, answer: FinalAnswer) -> tuple[tuple[bytes, ...], api.Response]:
        """The last events of items, and the response. An answer without text or calls has an empty
        message, as in Ollama.
        """
        status = "incomplete" if answer.finish.reason == "length" else "completed"
        before = b""
        if not self._has_answer and not isinstance(self._open, _OpenMessage):
            before = self._open_item(_OpenMessage)
        written = (before, *self._close(status))
        details = api.IncompleteDetails("max_output_tokens") if status == "incomplete" else None
        return written, msgspec.structs.replace(
            self._response,
            completed_at=int(time.time()) if status == "completed" else None,
            status=status,
            incomplete_details=details,
            output=self._output,
            usage=_usage(answer.finish.usage),
        )

    def _kept(self, response: api.Response) -> api.Response:
        data = encode.to_json(response)
        if self._keep is not None:
            self._keep(data, self._ids)
        return cast("api.Response", msgspec.Raw(data))


class InputTokensFormat(OpenAIResponsesFormat):
    """For ``/v1/responses/input_tokens``: the number of the prompt's tokens, cached or not."""

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes:
        (answer,) = answers
        return encode.to_json(api.InputTokens(input_tokens=answer.finish.usage.prompt))


class _OpenItem:
    """The item that the model is writing, which is a text."""

    _prefix: ClassVar[str]
    _delta: ClassVar[type[msgspec.Struct]]

    def __init__(self, response_format: OpenAIResponsesFormat, index: int) -> None:
        self.id = new_id(self._prefix)
        self._format = response_format
        self._index = index
        self._place = {"output_index": index, "item_id": self.id}
        self._number = response_format.number
        self._text = StringIO()
        self._write = self._text.write
        event = encode.to_event(
            self._delta(sequence_number=0, **self._place, delta=""), tag_of(self._delta)
        )
        head, number, rest = event.partition(b'"sequence_number":')
        self._before_number = head + number
        self._before_text, _, self._after_text = rest[1:].partition(b'""')

    def begin(self) -> bytes:
        """The events before its text."""
        raise NotImplementedError

    def delta(self, text: str) -> bytes:
        """The event for a piece of its text, in less than 1 µs."""
        self._write(text)
        return b"%b%d%b%b%b" % (
            self._before_number,
            self._number(),
            self._before_text,
            encode.to_json(text),
            self._after_text,
        )

    def end(self, status: str) -> tuple[tuple[bytes, ...], api.OutputItem]:
        """The events after its text, and the whole item, encoded."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """About the bytes of the item so far."""
        return self._text.tell()

    def cut_off(self) -> api.OutputItem:
        """The item so far, encoded."""
        raise NotImplementedError


class _OpenMessage(_OpenItem):
    _prefix = "msg"
    _delta = events.TextDelta

    def __init__(self, response_format: OpenAIResponsesFormat, index: int) -> None:
        super().__init__(response_format, index)
        self._logprobs: list[bytes] = []
        self._logprobs_size = 0

    def begin(self) -> bytes:
        event = self._format.event
        item = api.OutputMessage(id=self.id, status="in_progress", content=[])
        part = api.OutputText(text="")
        return event(events.ItemAdded, output_index=self._index, item=item) + event(
            events.ContentPartAdded, **self._place, part=part
        )

    def delta_with_logprobs(self, text: str, tokens: list[TokenLogprob]) -> bytes:
        self._write(text)
        logprobs = list(map(encode.to_json, answer_logprobs(tokens)))
        self._logprobs_size += sum(map(len, logprobs))
        if self._format.is_streamed and self._logprobs_size > LOGPROBS_LIMIT_BYTES:
            self._logprobs.clear()
        else:
            self._logprobs += logprobs
        shown = encoded_logprobs(logprobs)
        return self._format.event(events.TextDelta, **self._place, delta=text, logprobs=shown)

    def end(self, status: str) -> tuple[tuple[bytes, ...], api.OutputItem]:
        event = self._format.event
        content = self._content()
        part = encoded(content)
        item = self._item(part, status)
        written = (
            event(events.TextDone, **self._place, text=content.text, logprobs=content.logprobs),
            event(events.ContentPartDone, **self._place, part=part),
            event(events.ItemDone, output_index=self._index, item=item),
        )
        return written, item

    @property
    def size(self) -> int:
        return super().size + self._logprobs_size

    def cut_off(self) -> api.OutputItem:
        return self._item(self._content(), "incomplete")

    def _content(self) -> api.OutputText:
        """Of encoded fields."""
        text, logprobs = encoded(self._text.getvalue()), encoded_logprobs(self._logprobs)
        return api.OutputText(text=text, logprobs=logprobs)

    def _item(self, part: api.OutputText, status: str) -> api.OutputItem:
        return encoded(api.OutputMessage(id=self.id, status=status, content=[part]))


class _OpenReasoning(_OpenItem):
    _prefix = "rs"
    _delta = events.SummaryDelta

    def begin(self) -> bytes:
        event = self._format.event
        item = api.ReasoningItem(id=self.id, summary=[])
        part = api.SummaryText("")
        return event(events.ItemAdded, output_index=self._index, item=item) + event(
            events.SummaryPartAdded, **self._place, part=part
        )

    def end(self, status: str) -> tuple[tuple[bytes, ...], api.OutputItem]:  # noqa: ARG002  # has no status
        event = self._format.event
        text = encoded(self._text.getvalue())
        part = encoded(api.SummaryText(text))
        item = self._item(part, text)
        written = (
            event(events.SummaryDone, **self._place, text=text),
            event(events.SummaryPartDone, **self._place, part=part),
            event(events.ItemDone, output_index=self._index, item=item),
        )
        return written, item

    def cut_off(self) -> api.OutputItem:
        text = encoded(self._text.getvalue())
        return self._item(api.SummaryText(text), text)

    def _item(self, part: api.SummaryText, text: str) -> api.OutputItem:
        return encoded(api.ReasoningItem(id=self.id, summary=[part], encrypted_content=text))


def _last_tokens(tokens: list[TokenLogprob], size: int) -> list[TokenLogprob]:
    """Those that made a text of ``size`` bytes; before them may be some that end a thought."""
    at = len(tokens)
    while at and size > 0:
        at -= 1
        size -= len(tokens[at].token)
    return tokens[at:]


def tag_of(event: type[msgspec.Struct]) -> str:
    return cast("str", event.__struct_config__.tag)


def _usage(usage: Usage) -> api.ResponseUsage:
    return api.ResponseUsage(
        input_tokens=usage.prompt,
        input_tokens_details=api.InputTokensDetails(cached_tokens=usage.cached),
        output_tokens=usage.answer,
        output_tokens_details=api.OutputTokensDetails(usage.thinking),
        total_tokens=usage.prompt + usage.answer,
    )
