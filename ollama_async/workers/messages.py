"""The messages between the gateway and a worker.

Every message is one msgpack array (msgspec, array-like) whose first element is its tag, in a frame
of :mod:`.frames`. Changing a tag, a field or their order changes :data:`PROTOCOL`.

A connection, with the child's messages on the right::

    parent                          child
                                    Hello(protocol, pid, generation)
                                    Loading() …                  resets the load's timeout
                                    Ready(facts) | Refused(error)  then nothing more if Refused
    Submit(id, task, client) …      Started(id, …)               the model begins with it
                                    Deltas([(id, delta), …])     one message per engine step
                                    Done(id, …) | Failed(id, …)  exactly one per Submit, always last
    Cancel(id)                      Done(id, "cancel", …)        unless it had ended already
                                    Heartbeat(…)                 each second: the engine is alive
    LimitCache(bytes)                                            there is more or less memory
    Quit()                          (exits with status 0)
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ollama_async.core.conversation import Logprobs, Task, Thought, ToolCall, Usage, Vector

MAX_DELTAS = 4096
"""In one message. A step produces far fewer."""

CONTEXT_LIMIT = 1 << 20
"""Maximum number of token ids in the context of an answer, without its last one."""

PROTOCOL = 8
"""A child with another version is refused."""


class Submit(msgspec.Struct, array_like=True, tag="sub"):
    """``id`` is greater than zero and never reused in a worker. The client determines whose turn it
    is, and which cached prefixes the request may reuse.
    """

    id: int
    task: Task
    client: str = ""


class PackedSubmit(msgspec.Struct, array_like=True, tag="sub"):
    """:class:`Submit` as the parent writes it: the task was packed before it was queued."""

    id: int
    task: msgspec.Raw
    client: str = ""


class Cancel(msgspec.Struct, array_like=True, tag="can"):
    id: int


class Quit(msgspec.Struct, array_like=True, tag="quit"):
    """Exit; running requests get no end."""


class LimitCache(msgspec.Struct, array_like=True, tag="lim"):
    """Use only the first ``size_bytes`` of the memory for the prompt cache."""

    size_bytes: int


ToChild = Submit | Cancel | LimitCache | Quit
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
    ``kernels``: what computes, as in the engine's facts; begins with "own" or "stock", if it is not
    empty. ``warnings`` are for the server's log.
    """

    slots: int
    num_ctx: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    device_bytes: int
    warnings: list[str] = []
    kernels: str = ""

    @property
    def has_own_kernels(self) -> bool:
        return self.kernels.startswith("own")


class Refused(msgspec.Struct, array_like=True, tag="no"):
    """The model cannot be loaded, and why; ``code`` as in :mod:`ollama_async.core.errors`."""

    code: str
    message: str


class Started(msgspec.Struct, array_like=True, tag="go"):
    """``cached`` tokens of the ``prompt`` need not be computed again."""

    id: int
    prompt: int = 0
    cached: int = 0


class ToolCallDelta(msgspec.Struct, array_like=True, frozen=True, tag="c"):
    """A complete tool call, with its index in the answer and an id."""

    call: ToolCall


Delta = str | Thought | ToolCallDelta | Logprobs | Vector
"""Content (whole characters, never empty), or another part of the answer."""


class Deltas(msgspec.Struct, array_like=True, tag="p"):
    """The output of one step, in order for each id."""

    items: Annotated[list[tuple[int, Delta]], msgspec.Meta(max_length=MAX_DELTAS)]


class Done(msgspec.Struct, array_like=True, tag="done"):
    """``is_repetition``: the reason is ``length`` because the answer repeated itself.
    ``stop_string``: the one that ended it.
    """

    id: int
    reason: Literal["stop", "length", "cancel"]
    usage: Usage
    context: Annotated[list[int], msgspec.Meta(max_length=CONTEXT_LIMIT + 1)] = []
    is_repetition: bool = False
    stop_string: str = ""


class Failed(msgspec.Struct, array_like=True, tag="fail"):
    id: int
    code: str
    message: str


class Heartbeat(msgspec.Struct, array_like=True, tag="vit"):
    """Sent by the step thread, so its absence means that the engine hangs. ``cache_used``: share of
    the KV cache that running requests hold, 0 to 1. ``stored_bytes``, ``stored_states``: in the
    prompt cache.
    """

    busy_slots: int
    cache_used: float
    stored_bytes: int = 0
    stored_states: int = 0


ToParent = Hello | Loading | Ready | Refused | Started | Deltas | Done | Failed | Heartbeat
