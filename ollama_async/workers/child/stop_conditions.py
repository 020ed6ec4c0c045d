"""Stop strings: where an answer ends, and what must be held back until that is known."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable


class StopFinder:
    """Looks for stop strings in a text that arrives in pieces.

    The answer ends where the first stop string is complete, whatever the pieces; if several are
    complete with the same character, the longest counts. Text that may still turn out to be the
    beginning of one is held back; a stop string is never part of what :meth:`feed` returns. The
    cost of a character does not depend on the lengths of the stop strings (Knuth-Morris-Pratt), so
    that hostile ones slow nothing down.
    """

    __slots__ = ("_begins", "_held", "_matched", "_stops", "_tables", "is_found", "swallowed")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = sorted({stop for stop in stops if stop}, key=len, reverse=True)
        self._tables = [_failures(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._held = ""
        self._begins = re.compile(
            f"[{re.escape(''.join({stop[0] for stop in self._stops}))}]"
        ).search
        self.is_found = False
        self.swallowed = 0
        """Characters from the beginning of the stop string on, once it is found."""

    def feed(self, text: str) -> str:
        """What can be delivered now. Once ``is_found``, nothing may be fed any more."""
        if not self._held and not self._begins(text):
            return text
        whole = self._held + text
        for position in range(len(self._held), len(whole)):
            letter = whole[position]
            for index, stop in enumerate(self._stops):
                matched = self._advance(index, letter)
                if matched == len(stop):
                    self.is_found = True
                    self._held = ""
                    start = position + 1 - matched
                    self.swallowed = len(whole) - start
                    return whole[:start]
        free = len(whole) - max(self._matched)
        self._held = whole[free:]
        return whole[:free]

    def flush(self) -> str:
        """What is held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held

    def _advance(self, index: int, letter: str) -> int:
        stop, table, matched = self._stops[index], self._tables[index], self._matched[index]
        while matched and stop[matched] != letter:
            matched = table[matched - 1]
        if stop[matched] == letter:
            matched += 1
        self._matched[index] = matched
        return matched


def _failures(stop: str) -> list[int]:
    """For each prefix of ``stop``, the length of its longest proper suffix that begins ``stop``."""
    table = [0] * len(stop)
    matched = 0
    for index in range(1, len(stop)):
        while matched and stop[index] != stop[matched]:
            matched = table[matched - 1]
        if stop[index] == stop[matched]:
            matched += 1
        table[index] = matched
    return table


REPEATS = 16
"""How often, at least, a passage must come."""

CHECK_PERIOD = 61
"""Tokens between two looks. A prime, so that the looks fall on different places of a passage."""

_WINDOW = 16_384  # so passages of up to 1,024 tokens are found
_SAMPLE = 4  # tokens whose earlier places tell how long the passage may be
_CANDIDATES = 32
_TOKEN_BYTES = array("i").itemsize


class Repetition:
    """Watches one answer. ``limit``: how many of its last tokens must be a repetition.

    ``add`` takes each token, :meth:`look` is for every now and then: it takes microseconds.
    """

    __slots__ = ("_limit", "_tail", "add")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = array("i")
        self.add = self._tail.append

    def look(self) -> int:
        """Tokens of the passage that the answer repeats, 0 if it does not."""
        del self._tail[: -max(_WINDOW, self._limit)]
        return find_period(self._tail, self._limit)


def find_period(tokens: array[int], limit: int) -> int:
    """The length of the passage of which ``tokens`` end in repetitions, at least ``limit`` tokens
    and :data:`REPEATS` times; 0: they do not.
    """
    if len(tokens) < limit:
        return 0
    data = tokens.tobytes()
    sample = data[-_SAMPLE * _TOKEN_BYTES :]
    at = len(data) - 1
    for _ in range(_CANDIDATES):
        at = data.rfind(sample, 0, at)
        if at < 0:
            return 0
        distance = len(data) - len(sample) - at
        if distance % _TOKEN_BYTES == 0 and _repeats(data, distance, limit * _TOKEN_BYTES):
            return distance // _TOKEN_BYTES
        at += len(sample) - 1
    return 0


def _repeats(data: bytes, period: int, limit: int) -> bool:
    size = max(limit, REPEATS * period)
    return size <= len(data) and data[-size:-period] == data[period - size :]
