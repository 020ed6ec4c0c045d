"""The requests and responses of Anthropic's API: ``/v1/messages`` and what belongs to it.

Blocks are told apart by their ``type``. Fields that are not declared are accepted and ignored
(``cache_control``, ``citations``, betas); blocks of other types are refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.gocompat.json_decode import from_base64

_SHOWN_CHARACTERS = 40  # of a type that is refused

# --------------------------------------------------------------------------- blocks


class _Block(msgspec.Struct, tag_field="type"):
    """A part of a message's content."""


class TextBlock(_Block, tag="text"):
    text: str


_IMAGE_ERROR = "invalid base64 image data: "


class ImageSource(msgspec.Struct):
    """``data``: base64."""

    type: str
    media_type: str | None = None
    data: str | None = None

    def decode(self) -> bytes:
        """The image; its content decides what it is.

        :raises BadRequest: with Ollama's text.
        """
        if self.type != "base64":
            kind = self.type[:_SHOWN_CHARACTERS]
            raise BadRequest(
                f"invalid image source type: {kind}. Only base64 images are supported."
            )
        if not self.data:
            raise BadRequest("invalid image source: no data")
        try:
            return from_base64(self.data)
        except ValueError as error:
            raise BadRequest(f"{_IMAGE_ERROR}{error}") from None


class ImageBlock(_Block, tag="image"):
    source: ImageSource


class DocumentSource(msgspec.Struct):
    """``data``: plain text, if ``type`` is ``text``; ``content``, if it is ``content``."""

    type: str
    media_type: str | None = None
    data: str | None = None
    content: str | list[TextBlock | ImageBlock] | None = None


class DocumentBlock(_Block, tag="document"):
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(_Block, tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]


class ThinkingBlock(_Block, tag="thinking"):
    """``signature`` of a request may be anything: it is not checked."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Block, tag="redacted_thinking"):
    """Thinking that only Anthropic can read."""

    data: str


class ToolUseBlock(_Block, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(_Block, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None = None
    is_error: bool | None = None


class ServerToolUseBlock(_Block, tag="server_tool_use"):
    """A call of a tool that a server has run, in a history that another server began."""

    id: str
    name: str
    input: dict[str, Any]


class WebSearchResult(msgspec.Struct):
    title: str
    url: str


class WebSearchError(msgspec.Struct):
    error_code: str


class WebSearchToolResultBlock(_Block, tag="web_search_tool_result"):
    tool_use_id: str
    content: list[WebSearchResult] | WebSearchError


ContentBlock = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ServerToolUseBlock
    | WebSearchToolResultBlock
)


# --------------------------------------------------------------------------- requests


class MessageParam(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class Tool(msgspec.Struct):
    """``type``: ``custom``, or the name of a tool that Anthropic defines."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(msgspec.Struct):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None


class OutputFormat(msgspec.Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """What a prompt is made of. ``output_format`` is the older place of ``output_config.format``.

    ``mcp_servers``, ``container``, ``compaction`` and ``thread`` are refused.
    """

    is_exact: ClassVar[bool] = True
    image_error: ClassVar[str] = _IMAGE_ERROR

    model: str = ""
    messages: list[MessageParam] = []
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[dict[str, Any]] | None = None
    container: str | dict[str, Any] | None = None
    compaction: dict[str, Any] | None = None
    thread: dict[str, Any] | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    max_tokens: int = 0
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


# --------------------------------------------------------------------------- responses


class Usage(msgspec.Struct):
    """Tokens. Those of the prompt are ``input_tokens`` and ``cache_read_input_tokens`` together."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessagesResponse(msgspec.Struct, tag="message", tag_field="type", kw_only=True):
    """``stop_reason`` is None at the start of a stream."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage


class CountTokensResponse(msgspec.Struct):
    input_tokens: int


class ModelInfo(msgspec.Struct, tag="model", tag_field="type"):
    id: str
    display_name: str
    created_at: datetime


class ModelList(msgspec.Struct, kw_only=True):
    """All of them, on one page."""

    data: list[ModelInfo]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


class ErrorDetails(msgspec.Struct):
    error_code: str


class Error(msgspec.Struct, omit_defaults=True):
    """``details``: how clients recognize an error that they can avoid."""

    type: str
    message: str
    details: ErrorDetails | None = None


class ErrorResponse(msgspec.Struct, tag="error", tag_field="type"):
    error: Error
    request_id: str


# --------------------------------------------------------------------------- events of a stream


class TextDelta(msgspec.Struct, tag="text_delta", tag_field="type"):
    text: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta", tag_field="type"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta", tag_field="type"):
    signature: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta", tag_field="type"):
    """The whole input as JSON: calls are sent when they are complete."""

    partial_json: str


class MessageDelta(msgspec.Struct):
    stop_reason: StopReason
    stop_sequence: str | None


class _Event(msgspec.Struct, tag_field="type"):
    """``type`` is also the name of the event."""


class MessageStart(_Event, tag="message_start"):
    message: MessagesResponse


class Ping(_Event, tag="ping"):
    pass


class ContentBlockStart(_Event, tag="content_block_start"):
    index: int
    content_block: AnswerBlock


class ContentBlockDelta(_Event, tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class ContentBlockStop(_Event, tag="content_block_stop"):
    index: int


class MessageDeltaEvent(_Event, tag="message_delta"):
    delta: MessageDelta
    usage: Usage


class MessageStop(_Event, tag="message_stop"):
    pass


Event = (
    MessageStart
    | Ping
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDeltaEvent
    | MessageStop
)
