"""The requests and responses of OpenAI's ``/v1/responses``.

An item is a message, a tool call, the result of one, or what the model thought. The items of a
request have one Struct for all types, because ``type`` may be missing; those of an answer have one
each. The fields of an answer are always written, as OpenAI does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ollama_async.api.ollama import Int
from ollama_async.api.openai import Ignored, InputAudio, Logprob

Input = Annotated[
    "str | list[InputItem] | None",
    Meta(extra={"mismatch": "input must be a string or array, not %s"}),
]
Content = Annotated[
    "str | list[ContentPart] | None",
    Meta(extra={"mismatch": "content must be a string or array, not %s"}),
]
Output = Annotated[
    "str | list[ContentPart] | None",
    Meta(extra={"mismatch": "output must be a string or array, not %s"}),
]

INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""What a request may ask to be included in its answer."""

LOGPROBS = "message.output_text.logprobs"

METADATA_LIMIT = 16
METADATA_KEY_CHARACTERS = 64
METADATA_VALUE_CHARACTERS = 512


# --------------------------------------------------------------------------- items of requests


class _Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A part of a request, which may be stored, and is written without what is missing.

    The collector does not look at it: a request may have thousands, and none is in a cycle.
    """


class ContentPart(_Part):
    """``type`` says which of the others counts: ``text`` for ``input_text``, ``output_text``,
    ``summary_text`` and ``reasoning_text``; ``refusal``; ``image_url``, a data URL, for
    ``input_image``; ``input_audio``.
    """

    type: str = ""
    text: str = ""
    refusal: str = ""
    image_url: str = ""
    detail: str = ""
    file_id: str = ""
    input_audio: InputAudio | None = None
    annotations: Ignored = None
    logprobs: Ignored = None
    prompt_cache_breakpoint: Ignored = None


class InputItem(_Part):
    """``type`` says which of the others count; without one, an item with a ``role`` is a message.

    - ``message``: ``role``, ``content``.
    - ``function_call``: ``call_id``, ``name``, ``arguments`` (the text of a JSON object).
    - ``function_call_output``: ``call_id``, ``output``.
    - ``reasoning``: ``encrypted_content``, else ``content``, else ``summary``.
    - ``item_reference``: the ``id`` of an item of a stored response.
    - ``web_search_call``: skipped, as in Ollama.
    """

    type: str = ""
    id: str = ""
    status: str = ""
    role: str = ""
    content: Content = None
    call_id: str = ""
    name: str = ""
    namespace: str = ""
    arguments: str = ""
    output: Output = None
    summary: list[ContentPart] | None = None
    encrypted_content: str = ""
    phase: Ignored = None
    caller: Ignored = None
    parsed_arguments: Ignored = None

    @property
    def kind(self) -> str:
        """Its type; empty if it has neither type nor role."""
        return self.type or ("message" if self.role else "")


# --------------------------------------------------------------------------- requests


class Reasoning(_Part):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextFormat(_Part):
    """``type``: ``text``, ``json_object`` or ``json_schema``. A ``schema`` is always obeyed."""

    type: str = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextConfig(_Part):
    """``verbosity`` has no effect here."""

    format: TextFormat | None = None
    verbosity: str | None = None


class MemberTool(_Part):
    """A tool of a namespace, which is a ``function``."""

    type: str = ""
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Ignored = None


class Tool(MemberTool):
    """``type``: ``function``, ``namespace`` with its ``tools``, or ``web_search``."""

    tools: list[MemberTool] = []
    external_web_access: Ignored = None
    filters: Ignored = None
    search_context_size: Ignored = None
    user_location: Ignored = None


class AllowedTool(_Part):
    type: str = ""
    name: str = ""


class ToolChoice(AllowedTool):
    """``type``: ``function`` with a ``name``, or ``allowed_tools`` with ``mode`` and ``tools``."""

    mode: str | None = None
    tools: list[AllowedTool] = []


class StreamOptions(_Part):
    include_obfuscation: Ignored = None


class ResponsesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``store`` None means true. Fields of the type Any are refused if they are set."""

    model: str = ""
    input: Input = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_output_tokens: Int | None = None
    max_tool_calls: Int | None = None
    temperature: float | None = None
    top_p: float | None = None
    include: list[str] = []
    top_logprobs: Int = 0
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    tools: list[Tool] = []
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: str | None = None
    metadata: dict[str, str] = {}
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None
    background: bool = False
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None


# --------------------------------------------------------------------------- items of answers


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", kw_only=True):
    text: str
    annotations: list[Any] = []
    logprobs: list[Logprob] = []


class OutputMessage(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    """``status``: ``in_progress``, ``completed``, or ``incomplete`` if the answer was cut off."""

    id: str
    status: str
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call", kw_only=True):
    """``arguments``: the text of a JSON object, in the order in which the model wrote it."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning", kw_only=True):
    """What the model thought, as its own summary. ``encrypted_content`` is the same in plain text,
    as in Ollama, for clients that send it back.
    """

    id: str
    summary: list[SummaryText]
    encrypted_content: str | UnsetType = UNSET


OutputItem = OutputMessage | FunctionCallItem | ReasoningItem


# --------------------------------------------------------------------------- responses


class FunctionTool(msgspec.Struct, tag_field="type", tag="function", kw_only=True):
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class NamespaceTool(msgspec.Struct, tag_field="type", tag="namespace", kw_only=True):
    name: str
    description: str | None
    tools: list[FunctionTool]


class WebSearchTool(msgspec.Struct, tag_field="type", tag="web_search"):
    """A search that the model is not told of."""


AnswerTool = FunctionTool | NamespaceTool | WebSearchTool


class AnswerFormat(msgspec.Struct, kw_only=True):
    """The ``format`` in force, as the request named it."""

    type: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class AnswerText(msgspec.Struct, kw_only=True):
    format: AnswerFormat
    verbosity: str | UnsetType = UNSET


class AnswerReasoning(msgspec.Struct):
    effort: str | None
    summary: str | None


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """``cached_tokens``: those that did not have to be computed again. Writing them to the cache
    is not counted.
    """

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    """``reasoning_tokens``: those of the answer up to its last thought."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, kw_only=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(msgspec.Struct):
    """``code``: ``server_error``, or ``invalid_prompt`` if the request is to blame."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    reason: str


class Response(msgspec.Struct, kw_only=True):
    """Times in seconds since 1970. ``status``: ``in_progress``, ``completed``, ``incomplete`` (cut
    off by a limit) or ``failed``. ``instructions``, ``tools`` and all that follows ``usage`` are
    those of the request, or what is in force without them.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: str
    incomplete_details: IncompleteDetails | None = None
    error: ResponseError | None = None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[OutputItem]
    tools: list[AnswerTool]
    usage: ResponseUsage | None = None
    tool_choice: str | ToolChoice
    parallel_tool_calls: bool
    max_tool_calls: int | None
    max_output_tokens: int | None
    truncation: str
    text: AnswerText
    reasoning: AnswerReasoning | None
    temperature: float
    top_p: float
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int
    store: bool
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None


class InputTokens(msgspec.Struct, kw_only=True):
    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class DeletedResponse(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(msgspec.Struct, kw_only=True):
    """``data`` are :class:`InputItem` objects with ids."""

    object: Literal["list"] = "list"
    data: list[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
