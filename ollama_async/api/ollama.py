"""The requests and responses of Ollama's own API, ``/api/*``.

``decode`` reads the requests, ``encode`` writes the responses. Structs have the names of Go's
types, because error texts contain them; response fields have Go's order. The required fields of a
response are always written, the others only when they differ from the default.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Required, TypedDict

import msgspec
from msgspec import Meta, field

from ollama_async.core import conversation
from ollama_async.gocompat import durations
from ollama_async.gocompat.json_decode import unmarshal

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ImageData = Annotated[bytes, Meta(extra={"go": "api.ImageData"})]
KeepAlive = Annotated[float | str | None, Meta(extra={"raw": True})]
Think = Annotated[bool | str | None, Meta(extra={"raw": True})]
Tool = Annotated[dict[str, Any], Meta(extra={"go": "api.Tool"})]
Tools = Annotated[list[Tool], Meta(extra={"go": "api.Tools"})]
Arguments = Annotated[dict[str, Any], Meta(extra={"go": "api.ToolCallFunctionArguments"})]

_SHOWN_CHARACTERS = 40  # of a value that is refused
_ROLE_CHARACTERS = 64  # no known role is longer, and lowering a long one would take its time
_LONGEST_KEEP_ALIVE_S = 2**63 / 1e9  # where Go's nanoseconds overflow
_GO_TYPES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
_THINK_VALUES = ", ".join([*map('"{}"'.format, conversation.THINK_LEVELS), "true, or false"])


# --------------------------------------------------------------------------- requests


class ToolCallFunction(conversation.ToolFunction, forbid_unknown_fields=True):
    name: str = field(default_factory=str)  # with a factory it is packed even when empty
    arguments: Arguments = {}
    index: Int = 0


class ToolCall(conversation.ToolCall, forbid_unknown_fields=True):
    function: ToolCallFunction = field(default_factory=ToolCallFunction)


class Message(conversation.Message, forbid_unknown_fields=True):
    """A message as it arrives, ready for a :class:`conversation.Prompt`."""

    role: str = field(default_factory=str)
    images: list[ImageData] = []
    tool_calls: list[ToolCall] = []  # type: ignore[assignment]  # only ever read as the base type

    def __post_init__(self) -> None:
        if len(self.role) <= _ROLE_CHARACTERS:
            self.role = self.role.lower()


class _Streaming(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    stream: bool | None = None

    @property
    def is_streaming(self) -> bool:
        return self.stream is not False


class _Inference(_Streaming, kw_only=True):
    """The fields of both generate and chat. ``format`` and ``options`` are plain JSON."""

    model: str = ""
    format: Any = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] = {}
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = field(default=False, name="_debug_render_only")
    logprobs: bool = False
    top_logprobs: Int = 0

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)
        check_think(self.think)

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds; ``inf`` = for ever; None = the server's default."""
        return parse_keep_alive(self.keep_alive)


class GenerateRequest(_Inference, kw_only=True):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[Int] = []
    raw: bool = False
    images: list[ImageData] = []


class ChatRequest(_Inference, kw_only=True):
    messages: list[Message] = []
    tools: Tools = []

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tools(self.tools)


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``/api/embed``. ``dimensions``: 0 or more than the model has means all."""

    model: str = ""
    input: Annotated[str | list[str] | None, Meta(extra={"raw": True})] = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None
    dimensions: Int = 0
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)


class EmbeddingRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``/api/embeddings``, the older form."""

    model: str = ""
    prompt: str = ""
    keep_alive: KeepAlive = None
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)


class _TokenRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    model: str = ""
    keep_alive: KeepAlive = None
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)


class TokenizeRequest(_TokenRequest, kw_only=True):
    """``/api/tokenize``. ``text``, ``content`` (as in llama.cpp) and ``prompt`` mean the same; the
    first that is there counts.
    """

    text: str | None = None
    content: str | None = None
    prompt: str | None = None
    add_special: bool = False
    parse_special: bool = True


class DetokenizeRequest(_TokenRequest, kw_only=True):
    """``/api/detokenize``."""

    tokens: list[Int] | None = None


class _Short(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request without texts for a model."""

    body_limit_bytes: ClassVar[int] = 1 << 20


class PullRequest(_Short, _Streaming, kw_only=True):
    """``name`` is the older spelling of ``model``."""

    model: str = ""
    name: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""


class PushRequest(PullRequest):
    """The same fields."""


class CreateRequest(_Streaming, kw_only=True):
    """``files``, ``adapters`` and ``draft_files`` map a relative file name to a digest.

    ``files`` None and ``{}`` differ (``{}`` is an ``unknown type``). ``license`` is a string or a
    list of strings, unchecked. Old clients send ``modelfile``, a Modelfile's text, or ``path``, the
    path of one on the server; they count if there is neither ``from`` nor ``files``.
    """

    body_limit_bytes: ClassVar[int] = 128 << 20
    """Licenses alone may be 64 MiB, and each byte may be written as six."""

    model: str = ""
    name: str = ""
    quantize: str = ""
    quantization: str = ""
    draft_quantize: str = ""
    from_: str = field(default="", name="from")
    remote_host: str = ""
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] = []
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None
    modelfile: str = ""
    path: str = ""


class DeleteRequest(_Short, kw_only=True):
    """``name`` is the older spelling of ``model``."""

    model: str = ""
    name: str = ""


class ShowRequest(_Short, kw_only=True):
    """``system`` and ``options`` override the model's own; ``template`` is ignored."""

    body_limit_bytes: ClassVar[int] = 10 << 20

    model: str = ""
    name: str = ""
    verbose: bool = False
    system: str = ""
    template: str = ""
    options: dict[str, Any] = {}


class WebSearchRequest(_Short, kw_only=True):
    query: str = ""
    max_results: Int = 0


class WebFetchRequest(_Short, kw_only=True):
    url: str = ""


class CopyRequest(_Short, kw_only=True):
    source: str = ""
    destination: str = ""


def parse_keep_alive(value: Any) -> float | None:
    """Seconds to stay loaded, from a number of seconds or a Go duration; ``inf`` for any negative
    value; None if the client did not send one.

    :raises ValueError: with Go's text (``time: missing unit in duration "300"``) or Ollama's
        (``Unsupported type: 'bool'``).
    """
    if value is None:
        return None
    if isinstance(value, str):
        nanoseconds = durations.parse(value)
        return math.inf if nanoseconds < 0 else nanoseconds / 1e9
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Unsupported type: '{_GO_TYPES[type(value)]}'")  # noqa: TRY004  # a bad value of a request
    if value < 0 or value >= _LONGEST_KEEP_ALIVE_S:
        return math.inf
    return float(value)


def check_think(value: object) -> None:
    """:raises ValueError: with Ollama's text."""
    if isinstance(value, str) and value not in conversation.THINK_LEVELS:
        shown = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
        raise ValueError(f'invalid think value: "{shown}" (must be {_THINK_VALUES})')
    if not isinstance(value, str | bool | None):
        raise ValueError(f"think must be a boolean or string ({_THINK_VALUES})")  # noqa: TRY004  # a bad value of a request


class ToolProperty(msgspec.Struct):
    description: str = ""


class ToolFunctionParameters(msgspec.Struct):
    required: list[str] = []
    properties: dict[str, ToolProperty] = {}


class ToolFunction(msgspec.Struct):
    name: str = ""
    description: str = ""
    parameters: ToolFunctionParameters | None = None


class _Tool(msgspec.Struct):
    type: str = ""
    function: ToolFunction | None = None


def check_tools(tools: list[dict[str, Any]], request: str = "ChatRequest") -> None:
    """Check the types of what renderers read; all else in a tool is passed on unchecked.

    :raises BadRequest: with Go's text, which has the name of the request.
    """
    try:
        msgspec.convert(tools, list[_Tool])
    except msgspec.ValidationError:
        unmarshal({"tools": tools}, _tools_of(request))


@cache
def _tools_of(request: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(request, [("tools", list[_Tool], [])])


# --------------------------------------------------------------------------- responses


class AnswerFunction(msgspec.Struct):
    """``arguments`` in the order in which the model wrote them."""

    index: int
    name: str
    arguments: dict[str, Any]


class AnswerCall(msgspec.Struct):
    id: str
    function: AnswerFunction


class DebugInfo(msgspec.Struct, omit_defaults=True):
    """For ``_debug_render_only``: the prompt as the model would read it, and the number of images
    in the request.
    """

    rendered_template: str
    image_count: int = 0


class TokenLogprob(msgspec.Struct, omit_defaults=True):
    """``bytes``: those of the token, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int] = []


class Logprob(TokenLogprob, omit_defaults=True):
    top_logprobs: list[TokenLogprob] = []


class AnswerMessage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The assistant's message, or a part of it."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: list[AnswerCall] = []


class GenerateResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One object of an answer; durations in nanoseconds."""

    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: list[int] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    tool_calls: list[AnswerCall] = []
    debug_info: DebugInfo | None = field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []


class ChatResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One object of an answer; durations in nanoseconds."""

    model: str
    created_at: str
    message: AnswerMessage
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class EmbedResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Durations in nanoseconds; ``prompt_eval_count``: tokens of all inputs."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingResponse(msgspec.Struct):
    embedding: list[float]


class ModelDetails(msgspec.Struct, omit_defaults=True, kw_only=True):
    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


def format_parameter_count(count: int) -> str:
    """``parameter_size`` in Ollama's notation: ``8.0B``, ``137.50M``, ``260K``, ``12``."""
    for size, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= size:
            return f"{count / size:.{0 if count % size == 0 else digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


class ListModelResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A row of ``/api/tags``. ``digest``: 64 hex digits, without prefix."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails
    capabilities: list[str] = []


class Tensor(msgspec.Struct):
    """``type``: ggml's name of it; ``shape``: the fastest dimension first."""

    name: str
    type: str
    shape: list[int]


class ShowResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """``license`` joins all licences; ``parameters`` has a line for each value."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: ModelDetails
    messages: list[dict[str, Any]] = []
    model_info: dict[str, Any]
    projector_info: dict[str, Any] = {}
    tensors: list[Tensor] = []
    capabilities: list[str] = []
    modified_at: str
    requires: str = ""


class ProcessModelResponse(msgspec.Struct, kw_only=True):
    """A row of ``/api/ps``."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class VersionResponse(msgspec.Struct):
    version: str


class HealthResponse(msgspec.Struct):
    """Not in Ollama. ``waiting`` and ``running`` requests; ``capacity``: of those that wait."""

    status: Literal["ok", "draining"]
    version: str
    uptime_s: int
    waiting: int
    capacity: int
    running: int
    models_loaded: int
    models_loading: int


class CloudStatus(msgspec.Struct):
    """``source``: what disabled it."""

    disabled: bool
    source: Literal["none", "env", "config", "both"]


class StatusResponse(msgspec.Struct):
    cloud: CloudStatus


class RecommendationsResponse(msgspec.Struct):
    recommendations: list[dict[str, Any]] = []


class ListResponse(msgspec.Struct):
    models: list[ListModelResponse]


class ProcessResponse(msgspec.Struct):
    models: list[ProcessModelResponse]


class ErrorResponse(msgspec.Struct, omit_defaults=True):
    """``signin_url``: where an account at ollama.com can be linked, if one is missing."""

    error: str
    signin_url: str = ""


class TokenizeResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Durations in nanoseconds."""

    model: str
    tokens: list[int]
    total_duration: int = 0
    load_duration: int = 0


class DetokenizeResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Durations in nanoseconds."""

    model: str
    text: str
    total_duration: int = 0
    load_duration: int = 0


class ProgressStatus(TypedDict, total=False):
    """One object of the progress of a pull, a push or a create. Only a status about a file has
    other keys than ``status``; sizes in bytes.
    """

    status: Required[str]
    digest: str
    total: int
    completed: int
