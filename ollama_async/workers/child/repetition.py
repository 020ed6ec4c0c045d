"""Answers that repeat themselves without end, which no reader wants and every slot pays for.

A small model, or a grammar that lets it go on, may write one passage over and over. Ollama ends
such an answer after 30 equal pieces, without a word. Real texts repeat themselves as well: an empty
table, a row of dashes, 600 zeros of a matrix, a sentence two hundred times because someone asked
for it. So here the end comes late, and only for an exact repetition that has nothing else in it,
over two thousand tokens (``OLLAMA_ASYNC_REPETITION_LIMIT``) and at least :data:`REPEATS` times.
"""

from __future__ import annotations

from array import array

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
