"""How long answers take lately, for an honest ``Retry-After``."""

from __future__ import annotations

import math

_WEIGHT = 0.2
_FIRST_GUESS_S = 1.0
_LIMIT_S = 600


class ServiceTime:
    """A moving average for each model that ever answered: one number each."""

    def __init__(self) -> None:
        self._average_s: dict[str, float] = {}

    def note(self, key: str, seconds: float) -> None:
        """A request of the model held its slot for so long."""
        before = self._average_s.get(key, seconds)
        self._average_s[key] = before + _WEIGHT * (seconds - before)

    def estimate_s(self, key: str, waiting: int, slots: int) -> int:
        """Whole seconds, at least 1, until a place in a line of ``waiting`` may be free."""
        average_s = self._average_s.get(key, _FIRST_GUESS_S)
        turns = max(1, waiting) / max(1, slots)
        return min(_LIMIT_S, max(1, math.ceil(average_s * turns)))
