"""The events of a stream of ``/v1/responses``."""

from __future__ import annotations

import msgspec

from ollama_async.api.openai import Logprob
from ollama_async.api.openai_responses import OutputItem, OutputText, Response, SummaryText


class _Event(msgspec.Struct, tag_field="type", kw_only=True):
    """``sequence_number`` counts the events of a stream from 0."""

    sequence_number: int


class _ResponseEvent(_Event, kw_only=True):
    response: Response


class ResponseCreated(_ResponseEvent, tag="response.created"):
    pass


class ResponseInProgress(_ResponseEvent, tag="response.in_progress"):
    pass


class ResponseCompleted(_ResponseEvent, tag="response.completed"):
    pass


class ResponseIncomplete(_ResponseEvent, tag="response.incomplete"):
    pass


class ResponseFailed(_ResponseEvent, tag="response.failed"):
    pass


class _OutputEvent(_Event, kw_only=True):
    """``output_index``: the item's place in the output of the response."""

    output_index: int


class _ItemEvent(_OutputEvent, kw_only=True):
    item: OutputItem


class ItemAdded(_ItemEvent, tag="response.output_item.added"):
    pass


class ItemDone(_ItemEvent, tag="response.output_item.done"):
    pass


class _PartEvent(_OutputEvent, kw_only=True):
    """``content_index``: the part's place in the message ``item_id``."""

    item_id: str
    content_index: int = 0


class ContentPartAdded(_PartEvent, tag="response.content_part.added", kw_only=True):
    part: OutputText


class ContentPartDone(_PartEvent, tag="response.content_part.done", kw_only=True):
    part: OutputText


class TextDelta(_PartEvent, tag="response.output_text.delta", kw_only=True):
    delta: str
    logprobs: list[Logprob] = []


class TextDone(_PartEvent, tag="response.output_text.done", kw_only=True):
    text: str
    logprobs: list[Logprob]


class _SummaryEvent(_OutputEvent, kw_only=True):
    item_id: str
    summary_index: int = 0


class SummaryPartAdded(_SummaryEvent, tag="response.reasoning_summary_part.added", kw_only=True):
    part: SummaryText


class SummaryPartDone(_SummaryEvent, tag="response.reasoning_summary_part.done", kw_only=True):
    part: SummaryText


class SummaryDelta(_SummaryEvent, tag="response.reasoning_summary_text.delta", kw_only=True):
    delta: str


class SummaryDone(_SummaryEvent, tag="response.reasoning_summary_text.done", kw_only=True):
    text: str


class ArgumentsDelta(_OutputEvent, tag="response.function_call_arguments.delta", kw_only=True):
    """All of them at once."""

    item_id: str
    delta: str


class ArgumentsDone(_OutputEvent, tag="response.function_call_arguments.done", kw_only=True):
    item_id: str
    name: str
    arguments: str


class ErrorEvent(_Event, tag="error", kw_only=True):
    """``response.failed`` follows."""

    code: str
    message: str
    param: str | None = None


Event = (
    ResponseCreated
    | ResponseInProgress
    | ItemAdded
    | ContentPartAdded
    | TextDelta
    | TextDone
    | ContentPartDone
    | SummaryPartAdded
    | SummaryDelta
    | SummaryDone
    | SummaryPartDone
    | ArgumentsDelta
    | ArgumentsDone
    | ItemDone
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ErrorEvent
)
