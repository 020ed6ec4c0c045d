"""The gateway's interface to inference: run jobs, load and unload models, take a snapshot.

``workers.pool.Pool`` implements :class:`InferenceBackend`. All calls, including those of a
:class:`Sink`, are made on the event loop. A sink must neither block nor raise.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ollama_async.core.conversation import Part, Usage
from ollama_async.core.errors import ServerError
from ollama_async.core.model_shape import EmbeddingKind, ModelShape

MEDIA_CONTEXT = 2048
"""Tokens of the context, at least, of a model with a projector: an image may have a thousand."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The model to load.

    ``key`` identifies it (the GGUF blob's digest, or ``scripted:NAME``): models with the same
    weights share an instance. ``name`` is for display. ``digest`` is the manifest's sha256 (64 hex
    digits). ``adapters``: paths of LoRA adapters. ``projector``: its path, or "". The memory
    estimate depends on the bytes of the files, the KV cache bytes per token, the trained context
    (0 = unknown) and ``shape``. ``embedding``: how it embeds or ranks, if it does.
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
    projector: str = ""
    shape: ModelShape = ModelShape()
    embedding: EmbeddingKind = ""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``num_ctx`` is the request's, the others are the model's; None = the default."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    use_mmap: bool | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model.

    ``task`` is a packed :data:`~ollama_async.core.conversation.Task`, because it may be large and
    queued for long. None = only load the model. ``keep_alive_s`` None = the server's default; inf =
    never unload. ``num_predict``: most tokens of the answer; negative = no limit. ``vectors``: how
    many it has. ``logprobs``: how many it has for each token; 0 = none.
    """

    target: Target
    load_options: LoadOptions
    client: str
    task: msgspec.Raw | None
    num_predict: int = -1
    vectors: int = 0
    logprobs: int = 0
    keep_alive_s: float | None = None


class Finish(msgspec.Struct, frozen=True):
    """The end of an answer. ``reason``: ``stop``, ``length`` or ``load`` (nothing was generated).
    ``is_repetition``: the reason is ``length`` because the model repeated itself endlessly.
    ``stop_string``: the one that ended the answer. ``context``: token ids, if they were requested.
    """

    reason: str
    usage: Usage
    context: list[int]
    is_repetition: bool = False
    stop_string: str = ""


class Start(msgspec.Struct, frozen=True):
    """The model begins with a job. ``load_ns``: from ``submit`` until the model was ready.
    ``cached`` tokens of the ``prompt`` need not be computed again.
    """

    load_ns: int = 0
    prompt: int = 0
    cached: int = 0


class Sink(Protocol):
    """Receives one job's answer. The last call is exactly one of ``finished`` and ``failed``."""

    def started(self, start: Start) -> None:
        """The job runs. Nothing of the answer comes before that."""

    def text(self, text: str) -> None:
        """The next characters of the answer; never empty."""

    def part(self, part: Part) -> None:
        """The next part of the answer that is not text, in order with the text."""

    def finished(self, finish: Finish) -> None: ...

    def failed(self, error: ServerError) -> None: ...

    def try_restart(self) -> bool:
        """The worker died. True if no byte has reached the client: the sink has discarded all text,
        and the answer starts again or fails.
        """


class Handle(Protocol):
    """One accepted job."""

    def cancel(self) -> None:
        """The sink receives nothing more. Idempotent; does nothing after the end."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``/api/ps``. ``kernels``: what computes on the CPU, "" for scripted models.
    ``expires_at`` is wall-clock seconds, constant until the next use of the model; inf = never.
    ``stored_bytes``, ``stored_states``: in its prompt cache.
    """

    target: Target
    size: int
    size_vram: int
    num_ctx: int
    slots: int
    running: int
    busy_slots: int
    cache_used: float
    kernels: Literal["own", "stock", ""] = ""
    expires_at: float
    stored_bytes: int = 0
    stored_states: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Queue and models at one moment, for metrics and health."""

    queued: int
    capacity: int
    running: dict[str, int]
    loaded: list[LoadedModel]
    loading: int


class InferenceBackend(Protocol):
    """Queues and runs jobs, and loads models for them."""

    def submit(self, job: Job, sink: Sink) -> Handle:
        """Admit the job synchronously, or raise.

        :raises Busy: ``OLLAMA_MAX_QUEUE`` requests are waiting.
        :raises ShuttingDown: no new work is accepted.
        :raises LoadFailed: the model can never fit this machine.
        :raises WorkerDied: the model's workers keep crashing.
        """

    async def unload(self, key: str) -> None:
        """Stop the model, if it is loaded, once its running requests have ended; does not wait."""

    def snapshot(self) -> Snapshot: ...


class Observer(Protocol):
    """Receives events for the metrics.

    ``reason`` of a rejection: ``full|draining|no_capacity``, of an unload:
    ``idle|requested|crashed|evicted|reload|shutdown``. ``outcome``: ``ok|failed|cancelled``.
    """

    def rejected(self, reason: str) -> None: ...

    def waited(self, model: str, seconds: float) -> None: ...

    def loaded(self, model: str, outcome: str, seconds: float) -> None: ...

    def unloaded(self, model: str, reason: str) -> None: ...

    def worker_died(self, model: str) -> None: ...
