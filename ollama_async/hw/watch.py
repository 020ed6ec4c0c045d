"""What the machine looked like a moment ago, for those who cannot wait for a look at it.

A thread of its own looks, and it is a daemon: a GPU driver that hangs costs fresh numbers, and must
not hold up the end of the server as a thread of an executor would.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ollama_async.hw.machine import Machine

PERIOD_S = 10.0
_END_DEADLINE_S = 1.0

log = logging.getLogger(__name__)


class Watch:
    """``seen`` is the last look; reading it never waits. Making one blocks for the first look."""

    def __init__(self, look: Callable[[], Machine], *, period_s: float = PERIOD_S) -> None:
        self.seen = look()
        self._look = look
        self._period_s = period_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="machine", daemon=True)
        self._thread.start()

    def close(self, *, deadline_s: float = _END_DEADLINE_S) -> None:
        """Look no more. Blocks until a look under way has ended, at most ``deadline_s``."""
        self._is_over.set()
        self._thread.join(deadline_s)

    def _go_on(self) -> None:
        while not self._is_over.wait(self._period_s):
            try:
                self.seen = self._look()
            except Exception:  # the boundary "task supervisor": the next look may succeed
                log.exception("looking at the machine")
