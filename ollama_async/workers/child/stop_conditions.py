"""Conditions that end an answer early: stop strings, and endless repetition.

A small model, or a grammar that lets it go on, may write one passage over and over. Ollama ends
such an answer after 30 equal pieces, without notice. Real texts repeat themselves as well: an empty
table, a row of dashes, 600 zeros of a matrix, a sentence requested two hundred times. So here the
answer ends late, and only for an exact repetition with nothing else in it: over two thousand tokens
(``OLLAMA_ASYNC_REPETITION_LIMIT``) and at least :data:`REPEATS` times.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

REPEATS = 16
"""How often, at least, a passage must be repeated."""

CHECK_PERIOD = 61
"""Tokens between two checks. A prime, so that checks fall on different places of a passage."""

_WINDOW = 16_384  # so passages of up to 1,024 tokens are found
_SAMPLE = 4  # tokens whose earlier positions suggest the length of the passage
_CANDIDATES = 32
_TOKEN_BYTES = array("i").itemsize


class StopStringFinder:
    """Finds stop strings in text that arrives in pieces.

    The answer ends where the first stop string is complete, however the text is split. If several
    are complete at the same character, the longest counts. Text that may be the beginning of one is
    held back; :meth:`feed` never returns a part of one. The cost of a character does not depend on
    the lengths of the stop strings (Knuth-Morris-Pratt), so hostile ones do not slow it down.

    ``swallowed``: once ``is_found``, the characters from the beginning of the stop string on.
    """

    __slots__ = ("_begins", "_held", "_matched", "_stops", "_tables", "is_found", "swallowed")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = sorted({stop for stop in stops if stop}, key=len, reverse=True)
        self._tables = [_failure_function(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._held = ""
        first_letters = "".join({stop[0] for stop in self._stops})
        self._begins = re.compile(f"[{re.escape(first_letters)}]").search
        self.is_found = False
        self.swallowed = 0

    def feed(self, text: str) -> str:
        """The text that can be delivered now. Do not call it once ``is_found``."""
        if not self._held and not self._begins(text):
            return text
        whole = self._held + text
        for position in range(len(self._held), len(whole)):
            letter = whole[position]
            for index, stop in enumerate(self._stops):
                matched = _advance(stop, self._tables[index], self._matched[index], letter)
                self._matched[index] = matched
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
        """The text held back, now that the answer has ended."""
        held, self._held = self._held, ""
        return held


def _failure_function(stop: str) -> list[int]:
    """For each prefix of ``stop``, the length of its longest proper suffix that is a prefix."""
    table = [0]
    for letter in stop[1:]:
        table.append(_advance(stop, table, table[-1], letter))
    return table


def _advance(stop: str, table: list[int], matched: int, letter: str) -> int:
    """How many characters of ``stop`` match after ``letter``, if ``matched`` did before it."""
    while matched and stop[matched] != letter:
        matched = table[matched - 1]
    return matched + (stop[matched] == letter)


class RepetitionDetector:
    """Detects endless repetition in one answer, over its last ``limit`` tokens.

    ``add`` takes each token. :meth:`check` takes microseconds; call it every now and then.
    """

    __slots__ = ("_limit", "_tail", "add")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = array("i")
        self.add = self._tail.append

    def check(self) -> int:
        """The number of tokens that the answer keeps repeating; 0 if it does not."""
        del self._tail[: -max(_WINDOW, self._limit)]
        return find_period(self._tail, self._limit)


def find_period(tokens: array[int], limit: int) -> int:
    """The length of the passage that ``tokens`` end in repeating, for at least ``limit`` tokens and
    :data:`REPEATS` times; 0 if they do not.
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
