"""Numbers that grow: a histogram and a counter cheap enough for every token.

``prometheus_client``'s own ones take a lock and walk the buckets in Python (2-3 µs); here an
observation is one bisection (0.2 µs). They are written on the event loop only and read by the
scrape, which shows them through :mod:`ollama_async.gateway.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

FOLDED = "other"
"""Label of everything beyond a family's limit."""


class Histogram:
    """A histogram. ``bounds`` are upper bounds in seconds, ascending; the last bucket is open."""

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
        so_far = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            so_far += count
            rows.append((bound, so_far))
        return rows


class HistogramVec:
    """Histograms of one family, told apart by their labels."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._rows: dict[tuple[str, ...], Histogram] = {}

    def __getitem__(self, labels: tuple[str, ...]) -> Histogram:
        tally = self._rows.get(labels)
        if tally is None:
            tally = self._rows[labels] = Histogram(self._bounds)
        return tally

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Histogram]]:
        return iter(list(self._rows.items()))


class CounterVec:
    """Counters of one family, told apart by their labels."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], float] = {}

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        self._rows[labels] = self._rows.get(labels, 0) + amount

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], float]]:
        return iter(list(self._rows.items()))


class LabelLimiter:
    """A label's values, at most ``limit`` of them; every later one is called ``other``.

    Bounds what a client can make the server remember by asking for ever new names.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def fold(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self._limit:
            return FOLDED
        self._known.add(name)
        return name
