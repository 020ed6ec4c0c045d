"""A leash for foreign code: a chat template is interrupted, and at worst ends with the process.

It may run on any thread. Another one, the :class:`Watch`, looks every 10 ms at whatever runs under
a :class:`Deadline`:

1. **Time**: the CPU time of the thread that runs it. CPU time and not the clock's, because a
   template must not fail when other threads have all the cores.
2. **Memory**: the process's anonymous memory is compared with what it was.
3. **The last resort**: SIGALRM, whose default action ends the process, is put off by each of these
   visits. It strikes when one operation inside the interpreter takes too long, so that no other
   thread has its turn.

What exceeds the first two has an exception raised in its thread, between two bytecodes.
"""

from __future__ import annotations

import ctypes
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ollama_async.core.errors import TemplateFailed

T = TypeVar("T")

CPU_LIMIT_S = 2.0
GROWTH_LIMIT_BYTES = 512 << 20
LAST_RESORT_S = 5.0
_PERIOD_S = 0.01
_TOO_LONG = "the model's chat template takes too long"
_STATUS = Path("/proc/self/status")

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)


class _Interrupted(BaseException):
    """Not an Exception, so that nothing on the way takes it for an ordinary error."""


class Watch:
    """Looks after the deadlines of a process; :meth:`run` is the life of a thread.

    ``last_resort_s`` 0 switches the third limit off: tests share the process with others.
    """

    def __init__(self, last_resort_s: float = LAST_RESORT_S) -> None:
        self._last_resort_s = last_resort_s
        self._running: dict[int, Deadline] = {}  # by thread
        self._struck: set[int] = set()  # threads in which an exception was raised
        self._is_asleep = True
        # a plain lock, and no condition: an exception may come between any two bytecodes of a
        # thread that is watched, and must not find it with a lock that nobody gives back
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(self) -> None:
        """Until :meth:`close`."""
        while self._calls.get():
            while self._visit():
                time.sleep(_PERIOD_S)

    def close(self) -> None:
        """Make :meth:`run` return when nothing is left to look after."""
        self._calls.put(False)

    def enter(self, deadline: Deadline) -> None:
        """The calling thread now runs under ``deadline``."""
        with self._lock:
            self._running[threading.get_ident()] = deadline
            self._set_last_resort(self._last_resort_s)
            if self._is_asleep:
                self._is_asleep = False
                self._calls.put(True)

    def leave(self) -> None:
        """The calling thread is left alone once this has returned. To be called again whenever it
        is interrupted instead.
        """
        thread = threading.get_ident()
        with self._lock:
            self._running.pop(thread, None)
            if not self._running:
                self._set_last_resort(0)
            if thread not in self._struck:
                return
            self._struck.remove(thread)
        # What was raised may not have struck yet, and then does so here. To take it back instead
        # would leave the interpreter looking for it at every jump, for ever.
        _raise_in_thread(thread, _Interrupted)
        while True:
            pass

    def _visit(self) -> bool:
        """Interrupt what is over its limits; again at each visit, should it get lost.

        Returns whether anything runs.
        """
        with self._lock:
            if not self._running:
                self._is_asleep = True
                return False
            self._set_last_resort(self._last_resort_s)
            for thread, deadline in self._running.items():
                if deadline.is_exceeded(thread):
                    self._struck.add(thread)
                    _raise_in_thread(thread, _Interrupted)
        return True

    def _set_last_resort(self, seconds: float) -> None:
        if self._last_resort_s:
            signal.setitimer(signal.ITIMER_REAL, seconds)


class Deadline:
    """A budget of CPU time and memory for several calls on one thread, not nested.

    ``error`` makes the exception for what exceeds it, of the reason.
    """

    def __init__(
        self,
        watch: Watch,
        cpu_limit_s: float = CPU_LIMIT_S,
        growth_limit_bytes: int = GROWTH_LIMIT_BYTES,
        *,
        error: Callable[[str], Exception] = TemplateFailed,
    ) -> None:
        self._watch = watch
        self._left_s = cpu_limit_s
        self._growth_limit = growth_limit_bytes
        self._error = error
        self._until_s = 0.0
        self._memory_at_start: int | None = None
        self._reason = _TOO_LONG

    def run(self, action: Callable[[], T]) -> T:
        """``action()``, with what earlier calls have left of the time.

        :raises Exception: it was interrupted; see the class.
        """
        if self._left_s <= 0:
            raise self._error(self._reason)
        begun_s = time.thread_time()
        self._until_s = begun_s + self._left_s
        try:
            return self._run_watched(action)
        except _Interrupted:
            self._left_s = 0.0
        finally:
            self._leave()  # again: that it has left is not certain if it was interrupted there
            self._left_s -= time.thread_time() - begun_s
        raise self._error(self._reason)

    def _run_watched(self, action: Callable[[], T]) -> T:
        try:
            self._watch.enter(self)
            return action()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Try until it is not interrupted itself; between two tries it may be, all the same."""
        while True:
            try:
                self._watch.leave()
                break
            except _Interrupted:
                continue

    def is_exceeded(self, thread: int) -> bool:
        """Whether the ``thread`` that runs the action is to be interrupted."""
        if self._memory_at_start is None:
            self._memory_at_start = _anonymous_bytes()
        if _anonymous_bytes() - self._memory_at_start > self._growth_limit:
            self._reason = "the model's chat template needs too much memory"
            return True
        return time.clock_gettime(time.pthread_getcpuclockid(thread)) > self._until_s


def _anonymous_bytes() -> int:
    """Resident memory that no file backs; weights that are being mapped in do not count."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0
