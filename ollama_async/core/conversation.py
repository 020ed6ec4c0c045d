"""Tasks for a model and the parts of their answers, independent of the client protocol.

These types cross every boundary (HTTP, queue, pipe, worker), so they import nothing of this package
and have no behaviour. Structs that are sent only between processes are array-like.
"""

from __future__ import annotations

from typing import Any

import msgspec

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
}
"""The four roles, by the names that clients use for them."""

THINK_LEVELS = ("high", "medium", "low", "max")
"""How much a model may think, if it has levels."""


class ToolFunction(msgspec.Struct, omit_defaults=True):
    """``arguments`` keeps the client's key order."""

    name: str
    arguments: dict[str, Any] = {}
    index: int = 0
    description: str = ""


class ToolCall(msgspec.Struct, omit_defaults=True):
    function: ToolFunction
    id: str = ""


class Message(msgspec.Struct, omit_defaults=True):
    """One turn. ``role`` is lower case; ``images`` are decoded bytes (audio travels here too)."""

    role: str
    content: str = ""
    thinking: str = ""
    images: list[bytes] = []
    tool_calls: list[ToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Thought(msgspec.Struct, array_like=True, frozen=True, tag="t"):
    """Thinking, as opposed to content; never empty."""

    text: str


class TokenLogprob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A token of an answer and the natural logarithm of its probability, by the raw logits.

    ``token``: its bytes, which may be a part of a character. ``top``: the most likely tokens in its
    place, best first.
    """

    token: bytes
    logprob: float
    top: list[tuple[bytes, float]] = []


class Logprobs(msgspec.Struct, array_like=True, frozen=True, tag="l", gc=False):
    """Of the tokens of one step, before the text, thinking and calls that came of them. These may
    be late, because they were held back, and may be missing: a stop string has no text.
    """

    tokens: list[TokenLogprob]


class Vector(msgspec.Struct, array_like=True, frozen=True, tag="v"):
    """The result for one input of an :class:`Embedding`: little-endian float32 numbers, as the
    model gave them; one, a logit, if there is a query. ``tokens``: those of the input.
    """

    index: int
    data: bytes
    tokens: int


Part = Thought | ToolCall | Logprobs | Vector
"""What an answer has besides text."""


class ChatFormatSpec(msgspec.Struct, array_like=True, frozen=True):
    """Which chat format a model uses, by its configuration. Empty fields are not configured.

    ``template`` is the text of a Go template. ``renderer`` and ``parser`` name built-in formats,
    some of which depend on the model's ``name``, ``family`` and ``parameter_count``.
    ``request_template`` is the request's Go template. It takes precedence in rendering; the answer
    is still parsed in the model's format.
    """

    template: str = ""
    renderer: str = ""
    parser: str = ""
    name: str = ""
    family: str = ""
    parameter_count: int = 0
    request_template: str = ""


class Prompt(msgspec.Struct, array_like=True):
    """The prompt of one request, before rendering.

    ``raw`` is not rendered (special tokens in it are parsed, BOS is still added once), and its
    images are those of ``messages``; if it is None, ``messages`` are rendered. ``context`` are
    token ids before the rendered text (the deprecated ``context`` field of ``/api/generate``).
    ``truncate``: drop the oldest turns until it fits. ``think`` None: not set. ``suffix``: the text
    after the answer. ``tool_choice``: ``auto``, ``none``, ``required`` or a function's name.
    ``parallel_tool_calls``: the answer may have more than one call; otherwise it ends after the
    first. The first ``model_messages`` messages are the model's own.
    """

    messages: list[Message] = []
    raw: str | None = None
    context: list[int] = []
    truncate: bool = True
    tools: list[dict[str, Any]] = []
    think: bool | str | None = None
    suffix: str = ""
    tool_choice: str = "auto"
    chat_format: ChatFormatSpec = ChatFormatSpec()
    model_messages: int = 0
    parallel_tool_calls: bool = True


class Sampling(msgspec.Struct, array_like=True):
    """Sampling and stop options with Ollama's defaults, range-checked.

    ``seed`` < 0 means random. ``num_predict`` < 0 means the tokens of ten contexts.
    ``repeat_last_n`` -1 means as far back as penalties can reach, 0 switches them off.
    ``logit_bias``: what is added to the logits of these tokens. ``mirostat``: its version, which
    replaces ``top_k``, ``typical_p``, ``top_p`` and ``min_p``; 0: off.
    """

    seed: int = -1
    num_predict: int = -1
    num_keep: int = 4
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] = []
    logit_bias: dict[int, float] = {}
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1


class Inference(msgspec.Struct, array_like=True, tag="inf"):
    """Generate an answer.

    ``num_ctx`` is the request's own limit in tokens (0 = all of the slot). ``shift``: when the
    context is full, drop the middle and go on; otherwise end with ``length``. ``returns_context``:
    the answer has the token ids of prompt and answer. ``format`` constrains the answer: ``"json"``
    or a JSON Schema. ``renders_only``: the answer is the rendered prompt; nothing is generated.
    ``counts_only``: the answer is nothing but the usage, with the tokens of the whole prompt,
    though it may not fit; its ``truncate`` is ignored.
    ``logprobs``: how many of the most likely tokens are given beside each token of the answer; -1:
    no logprobs at all.
    """

    prompt: Prompt
    sampling: Sampling
    num_ctx: int = 0
    shift: bool = True
    returns_context: bool = False
    format: str | dict[str, Any] | bool | None = None
    renders_only: bool = False
    logprobs: int = -1
    counts_only: bool = False


class Embedding(msgspec.Struct, array_like=True, tag="emb"):
    """Compute a vector for each input, a text or token ids; with a ``query``, a score of how well
    each answers it.

    ``truncate``: drop what is beyond the context; otherwise such an input is an error. ``num_ctx``
    is the request's own limit in tokens (0 = the model's). ``first``: the number of the first input
    in a client's request with several, for errors; -1: it has one.
    """

    inputs: list[str | list[int]]
    query: str | None = None
    truncate: bool = True
    num_ctx: int = 0
    first: int = -1


class Tokenize(msgspec.Struct, array_like=True, tag="tok"):
    """The answer has the token ids as its context. ``add_special``: with BOS and EOS as the model
    was trained. ``parse_special``: names of control tokens become these.
    """

    text: str
    add_special: bool = False
    parse_special: bool = True


class Detokenize(msgspec.Struct, array_like=True, tag="det"):
    """The answer is the text of the token ids."""

    tokens: list[int]


Task = Inference | Embedding | Tokenize | Detokenize


class Usage(msgspec.Struct, array_like=True):
    """Counts of tokens, and durations. ``cached`` tokens are part of ``prompt``, ``restored`` ones
    (from the prompt cache) of ``cached``. The token that ends an answer is part of ``answer``.
    ``thinking`` tokens are those of the answer up to its last thought. ``answer_ns`` is positive if
    ``answer`` is. Of the ``drafted`` tokens of prompt lookup, ``accepted`` ones came in the answer.
    """

    prompt: int = 0
    cached: int = 0
    prompt_ns: int = 0
    answer: int = 0
    answer_ns: int = 0
    thinking: int = 0
    drafted: int = 0
    accepted: int = 0
    restored: int = 0
