"""What the gateway may ask of the room behind it: run a request, load, unload, look.

The gateway sees only these types; ``workers.pool.Pool`` implements :class:`InferenceBackend`.
All calls are made on the event loop. Callbacks of a :class:`Sink` are plain functions, called on
the loop, and must neither block nor raise.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ollama_async.core.conversation import Thought, ToolCall, Usage
from ollama_async.core.errors import ServerError
from ollama_async.core.model_shape import ModelShape


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, as far as loading it is concerned.

    ``key`` tells models apart (the GGUF blob's digest, or ``scripted:NAME``): two names of the same
    weights share a worker. ``name`` is the display name of whoever asked last. ``digest`` is the
    manifest's sha256 (64 hex, no prefix). The sizes are what a memory estimate needs: bytes of the
    files, KV bytes per token of context, train context in tokens (0 = unknown). ``adapters``: paths
    of what is applied to the weights. ``shape``: what else takes memory.
    """

    key: str
    name: str
    digest: str
    engine: str
    path: str
    weights_bytes: int
    cache_bytes_per_token: int
    train_ctx: int
    details: dict[str, object]
    adapters: tuple[str, ...] = ()
    shape: ModelShape = ModelShape()


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Load-time wishes: the request's ``num_ctx``, the rest is the model's; None = the default.

    A loaded model whose ``num_ctx`` is larger satisfies a smaller wish. ``num_batch`` never
    reloads.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    use_mmap: bool | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a place.

    ``inference`` is an :class:`~ollama_async.core.conversation.Inference`, packed as workers read
    it: it may be large, and what waits is held as bytes and no tree. None = only load the model.
    ``client`` is who asks, for fairness: the peer's address, or its network.
    ``keep_alive_s`` None = the server's default; inf = for ever. ``num_predict``: tokens that the
    answer may have; negative = as many as may be.
    """

    target: Target
    load_options: LoadOptions
    client: str
    inference: msgspec.Raw | None
    num_predict: int = -1
    keep_alive_s: float | None = None


class Finish(msgspec.Struct, frozen=True):
    """How an answer ended. ``reason``: ``stop``, ``length`` or ``load`` (nothing was generated).
    ``is_repetition``: with ``length``, since the model repeated itself without end.
    """

    reason: str
    usage: Usage
    context: list[int]
    is_repetition: bool = False


class Sink(Protocol):
    """Where one job's answer goes. Exactly one of ``finished`` and ``failed`` comes, last."""

    def started(self, load_ns: int) -> None:
        """A slot is taken; ``load_ns`` passed since ``submit`` until the model was ready."""

    def text(self, text: str) -> None:
        """The next characters of the answer; never empty."""

    def part(self, part: Thought | ToolCall) -> None:
        """As :meth:`text`, and in one order with it: what else the answer consists of."""

    def finished(self, finish: Finish) -> None: ...

    def failed(self, error: ServerError) -> None: ...

    def may_restart(self) -> bool:
        """The worker died: true if no byte has reached the client, then all text so far is void
        and the answer starts again, or fails. A true answer empties the sink.
        """


class Handle(Protocol):
    """One accepted job."""

    def cancel(self) -> None:
        """The client left. The sink hears nothing more. Idempotent; a no-op after the end."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``/api/ps``. ``expires_at`` is wall-clock seconds, the same until the model is used
    again; inf = never.
    """

    target: Target
    size: int
    size_vram: int
    num_ctx: int
    slots: int
    running: int
    busy_slots: int
    cache_used: float
    expires_at: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the queue at one moment, for metrics and health."""

    waiting: int
    capacity: int
    running: dict[str, int]
    loaded: list[LoadedModel]
    loading: int


class InferenceBackend(Protocol):
    """Admission, waiting, loading, running."""

    def submit(self, job: Job, sink: Sink) -> Handle:
        """Admit the job, in one synchronous step, or refuse it.

        :raises Busy: as many as ``OLLAMA_MAX_QUEUE`` wait already.
        :raises ShuttingDown: no new work is taken.
        :raises LoadFailed: the model can never fit this machine.
        """

    async def unload(self, key: str) -> None:
        """Let the running requests of the model end, then stop its worker; at once if idle.

        Returns when asked, not when done. A key that is not loaded is not an error.
        """

    def snapshot(self) -> Snapshot: ...


class Observer(Protocol):
    """Told of what cannot be read from a snapshot; implemented by the metrics.

    Reasons are small closed sets: rejects ``full|draining|no_capacity``; loads
    ``ok|failed|cancelled``; unloads ``idle|requested|crashed|evicted|reload|shutdown``.
    """

    def rejected(self, reason: str) -> None: ...

    def waited(self, model: str, seconds: float) -> None: ...

    def loaded(self, model: str, outcome: str, seconds: float) -> None: ...

    def unloaded(self, model: str, reason: str) -> None: ...

    def worker_died(self, model: str) -> None: ...
