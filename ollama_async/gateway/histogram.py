"""A histogram that is cheap enough for every token, and bounded label values.

``prometheus_client``'s own takes a lock and walks the buckets in Python (2-3 µs); an observation
here is one bisection (0.2 µs). Histograms are written on the event loop only. The scrape reads them
through :mod:`ollama_async.gateway.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

Labels = tuple[str, ...]

OTHER = "other"
"""The label of all values beyond a limit."""


class Histogram:
    """``bounds`` are upper bounds in seconds, ascending; the last bucket is open."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, each with its bound as Prometheus spells it."""
        rows: list[tuple[str, float]] = []
        cumulative = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            cumulative += count
            rows.append((bound, cumulative))
        return rows


class LabelLimiter:
    """At most ``limit`` values of a label; all later ones become :data:`OTHER`.

    Bounds what a client can make the server remember by sending ever new names.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def fold(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(name)
        return name
