"""The threads of a worker process, and how they are connected; see :mod:`.__main__`."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

import msgspec

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.core.errors import LoadFailed, ServerError
from ollama_async.core.settings import Settings
from ollama_async.prompts.chat_format import ChatFormat, choose, select
from ollama_async.workers.child.batching import MIN_CHUNK, POOL, SEPARATE_CACHES, BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.embedding_loop import EmbeddingLoop
from ollama_async.workers.child.embedding_preparer import EmbeddingPreparer
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import open_embedding_engine, open_engine
from ollama_async.workers.child.engines.embedding import EmbeddingEngine
from ollama_async.workers.child.engines.engine import Engine, Progress
from ollama_async.workers.child.host_prompt_cache import HostPromptCache
from ollama_async.workers.child.mailbox import Mailbox, PreparedEmbedding, PreparedRequest
from ollama_async.workers.child.media import MediaEncoder
from ollama_async.workers.child.pipe import ChildPipe
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer
from ollama_async.workers.child.process_setup import restrict_system_calls
from ollama_async.workers.child.prompt_encoder import ChatFormatCache
from ollama_async.workers.child.resource_limits import ResourceLimit, Run, Watchdog
from ollama_async.workers.child.state_memory import MemoryUnusable, StateMemory
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Cancel, LimitCache, Loading, Quit, Ready, Refused

BROKEN = 70
"""Exit status after a fault of our own; sysexits.h calls it an internal software error."""

REFUSED = 1

_CLOSE_LIMIT_S = 30.0
_ENCODER_LIMIT_S = 1.0
_LOADING_PERIOD_S = 0.1
_RECEIVE_TIMEOUT_S = 60.0

E = TypeVar("E")


def end_process(status: int) -> NoReturn:
    """End the process without unwinding: an exit handler could only wait for something."""
    sys.stderr.flush()
    os._exit(status)


class Service:
    """One model, from loading to the end of the process."""

    def __init__(self, pipe: ChildPipe, spec: LoadSpec, settings: Settings) -> None:
        self._pipe = pipe
        self._spec = spec
        self._settings = settings
        self._watchdog = Watchdog()
        self._loop: EngineLoop | EmbeddingLoop
        self._preprocessor: Preprocessor[Any]
        self._prompt_cache: HostPromptCache | None = None
        self._encoder: tuple[MediaEncoder, threading.Thread] | None = None
        self._is_ready = threading.Event()
        self._is_closed = threading.Event()
        self._loading_sent_s = 0.0

    def serve(self) -> NoReturn:
        """Run all threads; the main thread prepares requests of the quick queue."""
        tasks = {
            "receive": self._receive,
            "step": self._run_engine,
            "heavy": lambda: self._prepare(is_quick=False),
            "watchdog": self._watchdog.run,
        }
        for name, task in tasks.items():
            threading.Thread(target=_guarded(task), name=name, daemon=True).start()
        _guarded(lambda: self._prepare(is_quick=True))()
        end_process(BROKEN)

    def _prepare(self, *, is_quick: bool) -> None:
        self._is_ready.wait()
        self._preprocessor.run(is_quick=is_quick)

    def _receive(self) -> None:
        while True:
            message = self._pipe.receive(_RECEIVE_TIMEOUT_S)
            if message is None:
                continue
            if isinstance(message, Quit):
                self._quit()
            self._is_ready.wait()  # before that, the parent sends nothing but Quit
            if isinstance(message, LimitCache):
                if self._prompt_cache is not None:
                    self._prompt_cache.request_limit(message.size_bytes)
            elif isinstance(message, Cancel):
                self._preprocessor.cancel(message)
            else:
                self._preprocessor.put(message)

    def _quit(self) -> NoReturn:
        """Close the engine if that does not hang; the parent has a timeout of its own."""
        if self._is_ready.is_set():
            self._loop.stop()
            self._is_closed.wait(_CLOSE_LIMIT_S)
        end_process(0)

    def _run_engine(self) -> None:
        engine: Engine | EmbeddingEngine
        if self._spec.embedding:
            engine = embedder = self._load(open_embedding_engine, self._spec)
            self._serve_embeddings(embedder)
        else:
            # with every slot decoding, the smallest chunk of a prompt must still fit
            slots = max(self._spec.slots, self._spec.pool_slots)
            batch_size = max(self._spec.batch_size, slots + MIN_CHUNK)
            spec = msgspec.structs.replace(self._spec, batch_size=batch_size)
            engine = generator = self._load(open_engine, spec)
            self._serve_answers(generator)
        if not engine.facts.device_bytes:  # a GPU driver makes other, unknown system calls later
            is_confined = restrict_system_calls()
            outcome = "confined" if is_confined else "not confined: there is no libseccomp"
            print(f"INFO system calls: {outcome}", file=sys.stderr)  # noqa: T201  # stderr is the log
        self._pipe.send([msgspec.convert(engine.facts, Ready, from_attributes=True)])
        self._is_ready.set()
        self._loop.run()
        if self._stop_encoder():
            engine.close()
        self._is_closed.set()

    def _stop_encoder(self) -> bool:
        """False if it still uses the engine; then only the end of the process frees its memory."""
        if self._encoder is None:
            return True
        encoder, thread = self._encoder
        encoder.close()
        thread.join(_ENCODER_LIMIT_S)
        return not thread.is_alive()

    def _serve_answers(self, engine: Engine) -> None:
        mailbox: Mailbox[PreparedRequest] = Mailbox()
        encoder = None
        if engine.projector is not None:
            run = ResourceLimit(self._watchdog, math.inf, math.inf).run  # it was decoded before
            encoder = MediaEncoder(engine.projector, mailbox.notify, run)
            thread = threading.Thread(target=_guarded(encoder.run), name="encoder", daemon=True)
            thread.start()
            self._encoder = encoder, thread
        self._prompt_cache = self._open_prompt_cache(engine)
        self._loop = EngineLoop(
            engine,
            mailbox,
            self._pipe.send,
            BatchPlanner(
                max(self._spec.batch_size, engine.facts.slots + MIN_CHUNK),
                POOL if engine.facts.is_pooled else SEPARATE_CACHES,
            ),
            prompt_cache=self._prompt_cache,
            encoder=encoder,
            lookup=PromptLookup(is_invariant=engine.facts.is_invariant)
            if engine.facts.can_draft
            else None,
            repetition_limit=self._settings.repetition_limit,
        )
        preparer = RequestPreparer(
            engine,
            ChatFormatCache(engine, partial(_choose, self._settings.go_template)),
            self._make_run,
            guards_calls=self._settings.enforce_tool_schemas,
            shares_prefixes=self._settings.prefix_sharing == "all",
        )
        self._preprocessor = Preprocessor(preparer, mailbox)

    def _open_prompt_cache(self, engine: Engine) -> HostPromptCache | None:
        """In the memory that the parent lent, with what a former worker left there."""
        spec, facts = self._spec, engine.facts
        if spec.cache_fd < 0:
            return None
        key = f"{spec.cache_key}\n{facts.state_layout}\n{facts.kernels}\n{facts.is_pooled}"
        try:
            memory = StateMemory(spec.cache_fd, hashlib.sha256(key.encode()).digest())
        except MemoryUnusable as reason:
            print(f"no prompt cache: {reason}", file=sys.stderr)  # noqa: T201  # stderr is the log
            return None
        os.close(spec.cache_fd)
        cache = HostPromptCache(engine, memory)
        cache.request_limit(spec.cache_bytes)
        cache.apply_limit()
        return cache

    def _serve_embeddings(self, engine: EmbeddingEngine) -> None:
        mailbox: Mailbox[PreparedEmbedding] = Mailbox()
        self._loop = EmbeddingLoop(engine, mailbox, self._pipe.send)
        self._preprocessor = Preprocessor(EmbeddingPreparer(engine, self._make_run), mailbox)

    def _make_run(self, limit_s: float, error: Callable[[str], Exception]) -> Run:
        return ResourceLimit(self._watchdog, limit_s, error=error).run

    def _load(self, open_: Callable[[LoadSpec, Settings, Progress], E], spec: LoadSpec) -> E:
        """The engine; if it cannot be loaded, the parent gets the reason and the process ends."""
        try:
            return open_(spec, self._settings, self._send_loading)
        except ServerError as error:
            refused = Refused(error.code, error.message)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client should read it
            traceback.print_exc()
            refused = Refused(LoadFailed.code, f"unable to load model: {error!r}")
        self._pipe.send([refused])
        end_process(REFUSED)

    def _send_loading(self, _fraction: float) -> None:
        now_s = time.monotonic()
        if now_s - self._loading_sent_s >= _LOADING_PERIOD_S:
            self._loading_sent_s = now_s
            self._pipe.send([Loading()])


def _choose(
    prefers_go: bool | None, spec: ChatFormatSpec, *, chat_template: str, bos: str, eos: str
) -> ChatFormat:
    """As :func:`choose`; logs the choice, except for templates of requests."""
    if not spec.request_template:
        selection = select(spec, chat_template, prefers_go=prefers_go)
        print(f"INFO {spec.name or 'model'}: template selection: {selection}", file=sys.stderr)  # noqa: T201  # stderr is the log
    return choose(spec, chat_template=chat_template, bos=bos, eos=eos, prefers_go=prefers_go)


def _guarded(task: Callable[[], None]) -> Callable[[], None]:
    """``task``, as the target of a thread whose failure ends the process."""

    def run() -> None:
        try:
            task()
        except BaseException:  # noqa: BLE001  # the boundary of a thread
            traceback.print_exc()
            end_process(BROKEN)

    return run
