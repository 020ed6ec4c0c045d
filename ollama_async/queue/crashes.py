"""Whether a model that keeps crashing may be tried again."""

from __future__ import annotations

from collections import deque

CRASHES = 3
WINDOW_S = 60.0
BACK_OFF_S = 30.0
"""A worker that died three times within a minute will most likely die again: requests are refused
for half a minute, at no cost, before the model is loaded once more.
"""


class Crashes:
    """The last deaths of every model's workers: a few numbers for each model that ever crashed."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._refused_until: dict[str, float] = {}

    def note(self, key: str, now: float) -> None:
        """A worker of the model died."""
        times = self._times.setdefault(key, deque(maxlen=CRASHES))
        times.append(now)
        if len(times) == CRASHES and now - times[0] <= WINDOW_S:
            self._refused_until[key] = now + BACK_OFF_S
            del self._times[key]

    def back_off_s(self, key: str, now: float) -> float:
        """How long the model is not to be tried; 0 = it may be."""
        left_s = self._refused_until.get(key, 0.0) - now
        if left_s <= 0:
            self._refused_until.pop(key, None)
        return max(0.0, left_s)
