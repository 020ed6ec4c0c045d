"""The requests and responses of OpenAI's API: chat completions, completions and models.

Requests are read as leniently as Ollama's own (``decode``), and unknown fields are ignored. A field
of the type :data:`Ignored` is one that clients send routinely and that has no effect here. The
required fields of a response are always written, the others only when they are set.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from ollama_async.api.ollama import (
    Int,
    KeepAlive,
    Think,
    Tools,
    check_think,
    check_tools,
    parse_keep_alive,
)

Ignored = Annotated[Any, Meta(description="Accepted, and has no effect.", extra={"raw": True})]
Content = Annotated[
    "str | list[ContentPart] | None",
    Meta(extra={"mismatch": "invalid message content type: %s"}),
]

FINGERPRINT = "fp_ollama"
"""``system_fingerprint`` of every answer, as in Ollama."""

TOKEN_LIMIT = 2**31
"""Ids of tokens are below."""

_ROLE_CHARACTERS = 64  # no known role is longer, and lowering a long one would take its time


def are_token_ids(value: object) -> bool:
    """Whether this is a list of ids of tokens, at least one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(each) is int and 0 <= each < TOKEN_LIMIT for each in value)
    )


# --------------------------------------------------------------------------- messages


class _Input(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A part of a request."""


class ImageUrl(_Input):
    """``url``: a data URL; no other is ever fetched."""

    url: str = ""
    detail: Ignored = None


class InputAudio(_Input):
    """``data``: base64. The bytes decide what it is, whatever ``format`` says."""

    data: str = ""
    format: str = ""


class ContentPart(_Input):
    """``type`` says which of the others counts: ``text``, ``refusal``, ``image_url`` or
    ``input_audio``.
    """

    type: str = ""
    text: str = ""
    refusal: str = ""
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    cache_control: Ignored = None


class FunctionCall(_Input):
    """``arguments``: the text of a JSON object; empty: no arguments."""

    name: str = ""
    arguments: str = ""


class ToolCall(_Input):
    id: str = ""
    index: Int = 0
    type: str = ""
    function: FunctionCall = field(default_factory=FunctionCall)


class Message(_Input):
    """A message of any role. ``reasoning_content`` is another name of ``reasoning``.

    ``function_call`` is an older spelling of one of the ``tool_calls``.
    """

    role: str = ""
    content: Content = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    annotations: Ignored = None
    audio: Ignored = None

    def __post_init__(self) -> None:
        if len(self.role) <= _ROLE_CHARACTERS:
            self.role = self.role.lower()


# --------------------------------------------------------------------------- requests


class StreamOptions(_Input):
    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class Reasoning(_Input):
    effort: str | None = None
    summary: Ignored = None


class JsonSchema(_Input):
    """``schema`` is always obeyed, whether it is ``strict`` or not."""

    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(_Input):
    """``type``: ``text``, ``json_object`` or ``json_schema``."""

    type: str = ""
    json_schema: JsonSchema | None = None


class NamedFunction(_Input):
    name: str = ""


class NamedTool(_Input):
    type: str = ""
    function: NamedFunction = field(default_factory=NamedFunction)


class AllowedTools(_Input):
    """``mode``: ``auto`` or ``required``."""

    mode: str = ""
    tools: list[NamedTool] = []


class ToolChoice(NamedTool):
    """``type``: ``function`` with a ``function``, or ``allowed_tools`` with ``allowed_tools``."""

    allowed_tools: AllowedTools = field(default_factory=AllowedTools)


class _Request(_Input):
    """The fields of both chat completions and completions.

    ``keep_alive`` and ``options`` are Ollama's, ``top_k`` and ``min_p`` two of its options by their
    usual names. Where both say the same, OpenAI's field counts.
    """

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Int | None = None
    n: Int | None = None
    seed: Int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None
    user: Ignored = None

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)

    @property
    def includes_usage(self) -> bool:
        """A stream ends with the counts of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatCompletionRequest(_Request):
    """``think`` is Ollama's; ``reasoning`` and ``reasoning_effort`` take precedence."""

    messages: list[Message] | None = None
    max_completion_tokens: Int | None = None
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    think: Think = None
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    debug_render_only: bool = field(default=False, name="_debug_render_only")
    metadata: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    verbosity: Ignored = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_think(self.think)
        check_tools(self.tools or [], type(self).__name__)


class CompletionRequest(_Request):
    """``logprobs``: how many of the most likely tokens are given beside each."""

    prompt: str | list[Any] | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Int | None = None
    best_of: Int | None = None


# --------------------------------------------------------------------------- responses


class AnswerFunction(msgspec.Struct):
    """``arguments``: the text of a JSON object, in the order in which the model wrote it."""

    name: str
    arguments: str


class AnswerCall(msgspec.Struct, kw_only=True):
    """``index``: its number among the calls of the answer."""

    id: str
    index: int
    type: Literal["function"] = "function"
    function: AnswerFunction


class TokenLogprob(msgspec.Struct):
    """``bytes``: those of the token, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class Logprobs(msgspec.Struct):
    content: list[Logprob]


class AnswerMessage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The thinking is given by the two names that clients know."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnswerCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    index: int
    message: AnswerMessage
    finish_reason: str | None
    logprobs: Logprobs | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    index: int
    delta: AnswerMessage
    finish_reason: str | None
    logprobs: Logprobs | UnsetType = UNSET


class PromptTokensDetails(msgspec.Struct):
    """``cached_tokens``: those of the prompt that did not have to be computed again."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    """``reasoning_tokens``: those of the answer up to its last thought."""

    reasoning_tokens: int


class Usage(msgspec.Struct, kw_only=True):
    """Counts of tokens. Answers to the same prompt count it once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class DebugInfo(msgspec.Struct):
    """For ``_debug_render_only``: the prompt as the model would read it."""

    rendered_template: str


class ChatCompletion(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: Usage
    debug_info: DebugInfo | UnsetType = field(default=UNSET, name="_debug_info")


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """One event of a stream. ``usage`` is in the last one, which has no choices."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType = UNSET


class CompletionLogprobs(msgspec.Struct):
    """``text_offset``: where each token begins, in characters of the answer's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, kw_only=True):
    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None


class Completion(msgspec.Struct, kw_only=True):
    """An answer, or one event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET


class Model(msgspec.Struct, kw_only=True):
    """``created``: when it was last changed, in seconds since 1970. ``owned_by``: its namespace."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]
