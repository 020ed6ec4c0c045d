"""The messages between the gateway and a worker.

Every message is one msgpack array (msgspec, array-like) whose first element is its tag, in a frame
of :mod:`.frames`. Changing a tag, a field or their order changes :data:`PROTOCOL`.

A connection, with the child's messages on the right::

    parent                          child
                                    Hello(protocol, pid, generation)
                                    Loading() …                  resets the load's timeout
                                    Ready(facts) | Refused(error)  then nothing more if Refused
    Submit(id, inference, client) … Started(id)                  the request has a slot
                                    Deltas([(id, delta), …])     one message per engine step
                                    Done(id, …) | Failed(id, …)  exactly one per Submit, always last
    Cancel(id)                      Done(id, "cancel", …)        unless it had ended already
    Tokenize / Detokenize           Tokens / Text | Failed
                                    Heartbeat(…)                 each second: the engine is alive
    Quit()                          (exits with status 0)
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ollama_async.core.conversation import Inference, Thought, ToolCall, Usage

MAX_DELTAS = 4096
"""In one message. A step produces far fewer."""

CONTEXT_LIMIT = 1 << 20
"""Maximum number of token ids in the context of an answer, without its last one."""

PROTOCOL = 5
"""A child with another version is refused."""


class Submit(msgspec.Struct, array_like=True, tag="sub"):
    """``id`` is greater than zero and never reused in a worker. The client determines whose turn it
    is, and which cached prefixes the request may reuse.
    """

    id: int
    inference: Inference
    client: str = ""


class PackedSubmit(msgspec.Struct, array_like=True, tag="sub"):
    """:class:`Submit` as the parent writes it: the inference was packed before it was queued."""

    id: int
    inference: msgspec.Raw
    client: str = ""


class Cancel(msgspec.Struct, array_like=True, tag="can"):
    id: int


class Tokenize(msgspec.Struct, array_like=True, tag="tok"):
    id: int
    text: str
    add_special: bool = False
    parse_special: bool = True


class Detokenize(msgspec.Struct, array_like=True, tag="det"):
    id: int
    tokens: list[int]


class Quit(msgspec.Struct, array_like=True, tag="quit"):
    """Exit; running requests get no end."""


ToChild = Submit | Cancel | Tokenize | Detokenize | Quit
"""As the child reads it."""

FromParent = PackedSubmit | ToChild
"""As the parent writes it."""


class Hello(msgspec.Struct, array_like=True, tag="hi"):
    protocol: int
    pid: int
    generation: int


class Loading(msgspec.Struct, array_like=True, tag="load"):
    """The load made progress."""


class Ready(msgspec.Struct, array_like=True, tag="rdy"):
    """The model is loaded. ``num_ctx``: tokens per slot. ``weights_bytes`` + ``cache_bytes`` +
    ``compute_bytes`` is the model's size, ``device_bytes`` the part of it on an accelerator.
    ``warnings`` are for the server's log.
    """

    slots: int
    num_ctx: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    device_bytes: int
    warnings: list[str] = []


class Refused(msgspec.Struct, array_like=True, tag="no"):
    """The model cannot be loaded, and why; ``code`` as in :mod:`ollama_async.core.errors`."""

    code: str
    message: str


class Started(msgspec.Struct, array_like=True, tag="go"):
    id: int


class ToolCallDelta(msgspec.Struct, array_like=True, frozen=True, tag="c"):
    """A complete tool call, with its index in the answer and an id."""

    call: ToolCall


Delta = str | Thought | ToolCallDelta
"""Content (whole characters, never empty), or a thought, or a tool call."""


class Deltas(msgspec.Struct, array_like=True, tag="p"):
    """The output of one step, in order for each id."""

    items: Annotated[list[tuple[int, Delta]], msgspec.Meta(max_length=MAX_DELTAS)]


class Done(msgspec.Struct, array_like=True, tag="done"):
    """``is_repetition``: the reason is ``length`` because the answer repeated itself."""

    id: int
    reason: Literal["stop", "length", "cancel"]
    usage: Usage
    context: Annotated[list[int], msgspec.Meta(max_length=CONTEXT_LIMIT + 1)] = []
    is_repetition: bool = False


class Failed(msgspec.Struct, array_like=True, tag="fail"):
    id: int
    code: str
    message: str


class Tokens(msgspec.Struct, array_like=True, tag="toks"):
    id: int
    tokens: Annotated[list[int], msgspec.Meta(max_length=CONTEXT_LIMIT)]


class Text(msgspec.Struct, array_like=True, tag="text"):
    id: int
    text: str


class Heartbeat(msgspec.Struct, array_like=True, tag="vit"):
    """Sent by the step thread, so its absence means that the engine hangs. ``cache_used``: the used
    share of the KV cache, 0 to 1.
    """

    busy_slots: int
    cache_used: float


ToParent = (
    Hello | Loading | Ready | Refused | Started | Deltas | Done | Failed | Tokens | Text | Heartbeat
)
