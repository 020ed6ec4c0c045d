"""The threads of a worker process and how they are joined; see :mod:`.__main__`."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.core.errors import LoadFailed, ServerError
from ollama_async.core.settings import Settings
from ollama_async.prompts.chat_format import ChatFormat, choose, select
from ollama_async.workers.child.batching import MIN_CHUNK, Batching
from ollama_async.workers.child.chat_formats import Dialects
from ollama_async.workers.child.engine_loop import Loop
from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.engines.opening import open_engine
from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.pipe import ChildEnd
from ollama_async.workers.child.preparation import Preparation
from ollama_async.workers.child.preprocessor import Intake
from ollama_async.workers.child.process_setup import restrict_system_calls
from ollama_async.workers.child.resource_limits import ResourceLimit, Run, Watchdog
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Cancel, Loading, Quit, Ready, Refused

BROKEN = 70
"""Exit status after a fault of our own; sysexits.h calls it an internal software error."""

REFUSED = 1

_CLOSE_LIMIT_S = 30.0
_LOADING_PERIOD_S = 0.1
_RECEIVE_TIMEOUT_S = 60.0


def leave(status: int) -> NoReturn:
    """End the process without unwinding: an exit handler could only wait for something."""
    sys.stderr.flush()
    os._exit(status)


class Service:
    """One model, from loading to the end of the process."""

    def __init__(self, pipe: ChildEnd, spec: LoadSpec, settings: Settings) -> None:
        self._pipe = pipe
        # every slot decoding must leave room for the smallest chunk of a prompt
        self._spec = msgspec.structs.replace(
            spec, batch_size=max(spec.batch_size, spec.slots + MIN_CHUNK)
        )
        self._settings = settings
        self._mailbox = Mailbox()
        self._watchdog = Watchdog()
        self._loop: Loop
        self._intake: Intake
        self._is_ready = threading.Event()
        self._is_closed = threading.Event()

    def serve(self) -> NoReturn:
        """The main thread's life, which is also that of the intake's quick line."""
        tasks = {
            "receive": self._receive,
            "step": self._run_engine,
            "heavy": self._take_in_heavy,
            "watch": self._watchdog.run,
        }
        for name, task in tasks.items():
            threading.Thread(target=_guarded(task), name=name, daemon=True).start()
        _guarded(self._take_in)()
        leave(BROKEN)

    def _take_in(self) -> None:
        self._is_ready.wait()
        self._intake.run_quick()

    def _take_in_heavy(self) -> None:
        self._is_ready.wait()
        self._intake.run_heavy()

    def _make_run(self, cpu_limit_s: float, error: Callable[[str], Exception]) -> Run:
        return ResourceLimit(self._watchdog, cpu_limit_s, error=error).run

    def _receive(self) -> None:
        while True:
            message = self._pipe.receive(_RECEIVE_TIMEOUT_S)
            if message is None:
                continue
            if isinstance(message, Quit):
                self._quit()
            self._is_ready.wait()  # nothing but Quit is said before
            if isinstance(message, Cancel):
                self._intake.cancel(message)
            else:
                self._intake.put(message)

    def _quit(self) -> NoReturn:
        """Close the engine if it lets itself be closed; the parent has its own patience."""
        if self._is_ready.is_set():
            self._loop.stop()
            self._is_closed.wait(_CLOSE_LIMIT_S)
        leave(0)

    def _run_engine(self) -> None:
        engine = self._load()
        facts = engine.facts
        if not facts.device_bytes:  # what a GPU's driver asks for later, nobody has listed
            _confine()
        batch_size = max(self._spec.batch_size, facts.slots + MIN_CHUNK)
        self._loop = Loop(
            engine,
            self._mailbox,
            self._pipe.send,
            Batching(batch_size),
            repetition_limit=self._settings.repetition_limit,
        )
        dialects = Dialects(engine, partial(_choose, self._settings.go_template))
        preparation = Preparation(
            engine,
            dialects,
            self._make_run,
            guards_calls=self._settings.enforce_tool_schemas,
            shares_prefixes=self._settings.prefix_sharing == "all",
        )
        self._intake = Intake(preparation, self._mailbox)
        ready = Ready(
            slots=facts.slots,
            num_ctx=facts.num_ctx,
            weights_bytes=facts.weights_bytes,
            cache_bytes=facts.cache_bytes,
            compute_bytes=facts.compute_bytes,
            device_bytes=facts.device_bytes,
            warnings=list(facts.warnings),
        )
        self._pipe.send([ready])
        self._is_ready.set()
        self._loop.run()
        engine.close()
        self._is_closed.set()

    def _load(self) -> Engine:
        """The engine; if there is none, the parent is told why and the process ends."""
        try:
            return open_engine(self._spec, self._settings, _Progress(self._pipe))
        except ServerError as error:
            refused = Refused(error.code, error.message)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client should read it
            traceback.print_exc()
            refused = Refused(LoadFailed.code, f"unable to load model: {error!r}")
        self._pipe.send([refused])
        leave(REFUSED)


def _confine() -> None:
    outcome = "confined" if restrict_system_calls() else "not confined: there is no libseccomp"
    print(f"INFO system calls: {outcome}", file=sys.stderr)  # noqa: T201  # stderr is the log


def _choose(
    prefers_go: bool | None, spec: ChatFormatSpec, *, chat_template: str, bos: str, eos: str
) -> ChatFormat:
    """As :func:`choose`, and the log has a line; but for templates that came with a request."""
    if not spec.request_template:
        selection = select(spec, chat_template, prefers_go=prefers_go)
        print(f"INFO {spec.name or 'model'}: template selection: {selection}", file=sys.stderr)  # noqa: T201  # stderr is the log
    return choose(spec, chat_template=chat_template, bos=bos, eos=eos, prefers_go=prefers_go)


class _Progress:
    """Tells the parent of the load, not oftener than it cares."""

    def __init__(self, pipe: ChildEnd) -> None:
        self._pipe = pipe
        self._said_s = 0.0

    def __call__(self, fraction: float) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _LOADING_PERIOD_S:
            self._said_s = now_s
            self._pipe.send([Loading(fraction)])


def _guarded(task: Callable[[], None]) -> Callable[[], None]:
    """A thread whose end by an exception is the end of the process."""

    def run() -> None:
        try:
            task()
        except BaseException:  # noqa: BLE001  # the boundary of a thread
            traceback.print_exc()
            leave(BROKEN)

    return run
