"""A leash for foreign code: a chat template is interrupted, and at worst ends with the process.

It runs on the main thread, under three limits:

1. **Time**: SIGPROF comes every 20 ms of the process's CPU time, and its handler, which Python runs
   between two bytecodes of the main thread, looks at the thread's own CPU time. CPU time and not
   the clock's, because a template must not fail when engine threads have all the cores.
2. **Memory**: the same handler compares the process's anonymous memory with what it was.
3. **The last resort**: SIGALRM, whose default action ends the process, is put off by each of these
   visits. It strikes when one operation inside the interpreter takes too long, so that no bytecode
   comes to an end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ollama_async.errors import TemplateFailed

T = TypeVar("T")

CPU_LIMIT_S = 2.0
GROWTH_LIMIT_BYTES = 512 << 20
LAST_RESORT_S = 5.0
_PERIOD_S = 0.02
_TOO_LONG = "the model's chat template takes too long"
_STATUS = Path("/proc/self/status")


class _Interrupted(BaseException):
    """Not an Exception, so that nothing on the way takes it for an ordinary error."""


class Deadline:
    """A budget of CPU time and memory for several calls; main thread only, not nested.

    ``last_resort_s`` 0 switches the third limit off: tests share the process with others.
    """

    _running: Deadline | None = None
    _is_installed = False

    def __init__(
        self,
        cpu_limit_s: float = CPU_LIMIT_S,
        growth_limit_bytes: int = GROWTH_LIMIT_BYTES,
        last_resort_s: float = LAST_RESORT_S,
    ) -> None:
        self._left_s = cpu_limit_s
        self._growth_limit = growth_limit_bytes
        self._last_resort_s = last_resort_s
        self._until_s = 0.0
        self._memory_at_start: int | None = None
        self._reason = ""

    def run(self, action: Callable[[], T]) -> T:
        """``action()``, with what earlier calls have left of the time.

        :raises TemplateFailed: it was interrupted.
        """
        if self._left_s <= 0:
            raise TemplateFailed(_TOO_LONG)
        self._install()
        begun_s = time.thread_time()
        self._until_s = begun_s + self._left_s
        try:
            try:
                Deadline._running = self
                signal.setitimer(signal.ITIMER_PROF, _PERIOD_S, _PERIOD_S)
                self._put_off_last_resort()
                return action()
            finally:
                Deadline._running = None  # from here on a visit does nothing
                self._disarm()
                self._left_s -= time.thread_time() - begun_s
        except _Interrupted:
            Deadline._running = None
            self._disarm()
            raise TemplateFailed(self._reason) from None

    @classmethod
    def _install(cls) -> None:
        """For good: a signal that is on its way while a handler is taken away would be fatal."""
        if not cls._is_installed:
            signal.signal(signal.SIGPROF, cls._visit_running)
            signal.siginterrupt(signal.SIGPROF, False)  # other threads' calls go on
            cls._is_installed = True

    @classmethod
    def _visit_running(cls, _number: int, _frame: object) -> None:
        if cls._running is not None:
            cls._running.visit()

    def visit(self) -> None:
        """:raises _Interrupted: a limit is exceeded; again at each visit, should it get lost."""
        self._put_off_last_resort()
        if self._memory_at_start is None:
            self._memory_at_start = _anonymous_bytes()
        if _anonymous_bytes() - self._memory_at_start > self._growth_limit:
            self._reason = "the model's chat template needs too much memory"
            raise _Interrupted
        if time.thread_time() > self._until_s:
            self._reason = _TOO_LONG
            raise _Interrupted

    def _put_off_last_resort(self) -> None:
        if self._last_resort_s:
            signal.setitimer(signal.ITIMER_REAL, self._last_resort_s)

    def _disarm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._last_resort_s:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _anonymous_bytes() -> int:
    """Resident memory that no file backs; weights that are being mapped in do not count."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0
