"""Limits on preparing a request: CPU time and memory of templates, characters to tokenize.

A chat template is untrusted code. It runs under a :class:`ResourceLimit`, which the
:class:`Watchdog` thread checks every 10 ms:

1. **Time**: the CPU time of the thread, so that no template fails because others use the cores.
2. **Memory**: the growth of the process's anonymous memory. What runs at the same time shares it in
   equal parts: whose it is cannot be seen.
3. **Last resort**: SIGALRM, whose default action ends the process, is postponed by each check. It
   fires if one operation inside the interpreter takes so long that no other thread gets a turn.

Whatever exceeds the first two has an exception raised in its thread, between two bytecodes.

A :class:`PreparationBudget` limits the cost of a request. Most take a few milliseconds, so each
is first tried with a quick budget: nothing is built for the caches, long texts are not started, and
templates are interrupted early.
"""

from __future__ import annotations

import ctypes
import math
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from ollama_async.core.conversation import Prompt
from ollama_async.core.errors import BadRequest, TemplateFailed

T = TypeVar("T")

CPU_LIMIT_S = 2.0
GROWTH_LIMIT_BYTES = 512 << 20
LAST_RESORT_S = 5.0
_PERIOD_S = 0.01
_TOO_LONG = "the model's chat template takes too long"
_STATUS = Path("/proc/self/status")

QUICK_S = 0.03
"""CPU time for rendering with a quick budget."""

QUICK_CHARACTERS = 1 << 15
"""Characters of all renderings with a quick budget. Tokenizing them takes 8 ms, or 16 ms where they
are nothing but control tokens."""

QUICK_MESSAGES = 1 << 12

QUICK_BYTES = 16 << 20
"""Of images, whose hashes are computed with a quick budget. It takes 10 ms or less."""

REQUEST_TEMPLATE_S = 0.05
"""CPU time for rendering with a template that the request brings."""

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)


class _Interrupted(BaseException):
    """Not an Exception, so that nothing on the way handles it as an ordinary error."""


class Watchdog:
    """Enforces the resource limits of a process; :meth:`run` is a thread's target.

    ``last_resort_s`` 0 disables the third limit, for tests that share the process.
    """

    def __init__(self, last_resort_s: float = LAST_RESORT_S) -> None:
        self._last_resort_s = last_resort_s
        self._running: dict[int, ResourceLimit] = {}  # by thread
        self._interrupted: set[int] = set()  # threads in which an exception was raised
        self._seen: set[int] = set()  # threads that ran at the last check
        self._anonymous_bytes = 0  # at the last check
        self._is_asleep = True
        # A plain lock and no condition: an exception may come between any two bytecodes of a
        # watched thread, and must not leave a lock held.
        self._lock = threading.Lock()
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(self) -> None:
        while self._wakeups.get():
            while self._check():
                time.sleep(_PERIOD_S)

    def close(self) -> None:
        """Make :meth:`run` return once nothing is left to watch."""
        self._wakeups.put(False)

    def enter(self, limit: ResourceLimit) -> None:
        with self._lock:
            self._running[threading.get_ident()] = limit
            self._set_last_resort(self._last_resort_s)
            if self._is_asleep:
                self._is_asleep = False
                self._wakeups.put(True)

    def leave(self) -> None:
        """After this returns, the calling thread is not interrupted any more. If it is interrupted
        in here instead, it must call this again.
        """
        thread = threading.get_ident()
        with self._lock:
            self._running.pop(thread, None)
            self._seen.discard(thread)
            if not self._running:
                self._set_last_resort(0)
            if thread not in self._interrupted:
                return
            self._interrupted.remove(thread)
        # An exception may still be pending, and is raised here. Cancelling it instead would leave
        # the interpreter looking for it at every jump, forever.
        _raise_in_thread(thread, _Interrupted)
        while True:
            pass

    def _check(self) -> bool:
        """Interrupt what exceeds its limit, again at each check in case one gets lost.

        Returns whether anything runs.
        """
        with self._lock:
            if not self._running:
                self._is_asleep = True
                return False
            self._set_last_resort(self._last_resort_s)
            self._charge_growth()
            for thread, limit in self._running.items():
                if limit.is_exceeded(thread):
                    self._interrupted.add(thread)
                    _raise_in_thread(thread, _Interrupted)
        return True

    def _charge_growth(self) -> None:
        """Since the last check, to what has run since then."""
        before, self._anonymous_bytes = self._anonymous_bytes, _anonymous_bytes()
        for thread in self._seen:
            self._running[thread].growth_bytes += (self._anonymous_bytes - before) / len(self._seen)
        self._seen = set(self._running)

    def _set_last_resort(self, seconds: float) -> None:
        if self._last_resort_s:
            signal.setitimer(signal.ITIMER_REAL, seconds)


class ResourceLimit:
    """CPU time and memory for several calls on one thread, not nested.

    ``growth_bytes``: memory that they have taken so far. ``error`` makes the exception to raise,
    from the reason.
    """

    def __init__(
        self,
        watchdog: Watchdog,
        cpu_limit_s: float = CPU_LIMIT_S,
        growth_limit_bytes: float = GROWTH_LIMIT_BYTES,
        *,
        error: Callable[[str], Exception] = TemplateFailed,
    ) -> None:
        self._watchdog = watchdog
        self._left_s = cpu_limit_s
        self._growth_limit = growth_limit_bytes
        self._error = error
        self._until_s = 0.0
        self.growth_bytes = 0.0
        self._reason = _TOO_LONG

    def run(self, action: Callable[[], T]) -> T:
        """Call ``action`` with the time that earlier calls have left.

        :raises Exception: made by ``error``, if a limit is exceeded.
        """
        if self._left_s <= 0:
            raise self._error(self._reason)
        begun_s = time.thread_time()
        self._until_s = begun_s + self._left_s
        try:
            try:
                self._watchdog.enter(self)
                return action()
            finally:
                self._leave()
        except _Interrupted:
            self._left_s = 0.0
        finally:
            self._leave()  # again: an interruption may have come before the first call finished
            self._left_s -= time.thread_time() - begun_s
        raise self._error(self._reason)

    def _leave(self) -> None:
        """Retry until it is not interrupted itself; even between retries it may be."""
        while True:
            try:
                self._watchdog.leave()
                break
            except _Interrupted:
                continue

    def is_exceeded(self, thread: int) -> bool:
        """Whether the ``thread`` that runs the action must be interrupted."""
        if self.growth_bytes > self._growth_limit:
            self._reason = "the model's chat template needs too much memory"
            return True
        return time.clock_gettime(time.pthread_getcpuclockid(thread)) > self._until_s


def _anonymous_bytes() -> int:
    """Resident memory without file mappings: weights that are being mapped do not count."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


class Run(Protocol):
    """Runs untrusted code under a limit; see :meth:`.ResourceLimit.run`."""

    def __call__(self, action: Callable[[], T], /) -> T: ...


MakeRun = Callable[[float, Callable[[str], Exception]], Run]
"""Makes the runner of one request, from seconds of CPU time and a maker of the exception."""


class OverBudget(Exception):
    """The request cannot be prepared with a quick budget."""


class PreparationBudget:
    """What preparing one request may cost. ``most_characters`` are tokenized, in all.

    :raises OverBudget: from every method, if it ``is_quick`` and that is not enough.
    """

    def __init__(
        self, make_run: MakeRun, *, is_quick: bool, most_characters: float = math.inf
    ) -> None:
        self._is_quick = is_quick
        self._make_run = make_run
        self._most_characters = most_characters
        self._characters = 0

    def start_rendering(self, *, is_request_template: bool = False) -> Run:
        """A runner for the renderings of the request."""
        if self._is_quick:
            return self._make_run(QUICK_S, OverBudget)
        limit_s = REQUEST_TEMPLATE_S if is_request_template else CPU_LIMIT_S
        return self._make_run(limit_s, TemplateFailed)

    def charge_tokenizing(self, characters: int) -> None:
        """:raises BadRequest: that is too much."""
        self._characters += characters
        if self._characters > self._most_characters:
            raise BadRequest(f"the prompt has more than {self._most_characters} characters")
        if self._is_quick and self._characters > QUICK_CHARACTERS:
            raise OverBudget

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuse a prompt whose length alone makes it slow, whatever renders it."""
        length = len(prompt.raw or "") + len(prompt.context)
        length += sum(len(message.content) for message in prompt.messages)
        is_long = len(prompt.messages) > QUICK_MESSAGES or length > QUICK_CHARACTERS
        if self._is_quick and is_long:
            raise OverBudget

    def charge_hashing(self, size: int) -> None:
        """Hash so many bytes; once per request."""
        if self._is_quick and size > QUICK_BYTES:
            raise OverBudget

    def allow_build(self) -> None:
        """Something that is cached between requests must be built first."""
        if self._is_quick:
            raise OverBudget
