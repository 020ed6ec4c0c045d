"""The requests and responses of Ollama's own API, ``/api/*``, that are about texts: answers,
embeddings and tokens. Those about models: :mod:`.ollama_models`.

``decode`` reads the requests, ``encode`` writes the responses. Structs have the names of Go's
types, because error texts contain them; response fields have Go's order. The required fields of a
response are always written, the others only when they differ from the default.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any

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


class Streaming(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request that is answered by a stream, unless it declines."""

    stream: bool | None = None

    @property
    def is_streaming(self) -> bool:
        return self.stream is not False


class _Inference(Streaming, kw_only=True):
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
