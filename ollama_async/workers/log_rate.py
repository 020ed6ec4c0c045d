"""How much of what a worker prints goes to the log: a burst, then a trickle, and a count of the
rest. A worker that prints without end must fill neither the disk nor the gateway's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_BYTES = 1 << 20
"""More than a load prints, or a debugger that prints the stack of every thread."""

BYTES_PER_S = 16 << 10

_RESUME_BYTES = 64 << 10
"""So much has to be allowed again before lines are logged again: else every other line would be one
about lines that were dropped.
"""

_LINE_OVERHEAD_BYTES = 80
"""What the log adds to each line."""


class LogRate:
    """Forwards lines to ``log`` within limits. ``is_dropping``: the limits are reached."""

    def __init__(
        self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_dropping = False
        self._log = log
        self._clock = clock
        self._allowed_bytes = float(BURST_BYTES)
        self._counted_at = clock()
        self._dropped = 0

    def line(self, text: str) -> None:
        now = self._clock()
        gained = (now - self._counted_at) * BYTES_PER_S
        self._counted_at = now
        self._allowed_bytes = min(BURST_BYTES, self._allowed_bytes + gained)
        if self.is_dropping and self._allowed_bytes >= _RESUME_BYTES:
            self._tell()
            self.is_dropping = False
        elif not self.is_dropping and self._allowed_bytes <= 0:
            self.is_dropping = True
            self._log("prints too much: most lines are dropped from here on")
        if self.is_dropping:
            self._dropped += 1
            return
        self._allowed_bytes -= len(text) + _LINE_OVERHEAD_BYTES
        self._log(text)

    def skipped(self, count: int) -> None:
        """So many lines were not even looked at."""
        self._dropped += count

    def close(self) -> None:
        """No line follows."""
        self._tell()

    def _tell(self) -> None:
        if self._dropped:
            self._log(f"{self._dropped} lines dropped")
            self._dropped = 0
