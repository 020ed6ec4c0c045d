"""How much has to come, and in what time, for a transfer to count as moving."""

from __future__ import annotations

from ollama_async.registry.errors import Transient

LEAST_BYTES = 16 << 10
"""In the time that a connection may be silent: half a kilobyte a second with the usual 30 s. Below
that we are better off with a new connection, or with an error, than with a transfer of weeks."""


class Pace:
    """Watches one connection. ``window_s``: how long :data:`LEAST_BYTES` may take."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._waited_s = 0.0
        self._came_bytes = 0

    def came(self, count: int, waited_s: float) -> None:
        """So many bytes came after waiting so long for them.

        :raises Transient: too little came in the last window.
        """
        self._waited_s += waited_s
        self._came_bytes += count
        if self._came_bytes >= LEAST_BYTES:
            self._waited_s, self._came_bytes = 0.0, 0
        elif self._waited_s > self._window_s:
            raise Transient(f"too slow: {self._came_bytes} bytes in {self._waited_s:.0f} seconds")
