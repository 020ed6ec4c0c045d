"""Finding marks in a text of which more is to come."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from itertools import pairwise


class SearchedMarks:
    """Finds marks, and how much of a text's end may still become one."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        self._sorted = sorted(marks)
        self._size = max(map(len, marks), default=0)

    def search(self, text: str, at: int, before: int | None = None) -> re.Match[str] | None:
        """The first mark, if it begins ``before`` a place."""
        if not self._size:
            return None
        return self._pattern.search(text, at, len(text) if before is None else before + self._size)

    def match(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.match(text, at)

    def may_begin(self, text: str, at: int) -> bool:
        """Whether the rest of the text is the beginning of a mark."""
        return len(text) - at < self._size and self._is_beginning(text[at:])

    def certain(self, text: str, at: int) -> int:
        """Where that end of ``text`` begins that may become a mark; or the one that is there."""
        for place in range(max(at, len(text) - self._size + 1), len(text)):
            if self._is_beginning(text[place:]):
                return place
        return len(text)

    def unfinished(self, text: str, at: int) -> int:
        """As :meth:`certain`, but a whole mark at the end of ``text`` may become no other."""
        place = self.certain(text, at)
        return len(text) if text[place:] in self._sorted else place

    def _is_beginning(self, text: str) -> bool:
        place = bisect_left(self._sorted, text)
        return place < len(self._sorted) and self._sorted[place].startswith(text)


@lru_cache(maxsize=128)
def anywhere(marks: tuple[str, ...]) -> SearchedMarks:
    """Marks that are searched for; if one held another, the cuts in the text would decide."""
    found = in_one_place(marks)
    assert not any(found.search(mark, 1) for mark in marks), marks
    return found


@lru_cache(maxsize=128)
def in_one_place(marks: tuple[str, ...]) -> SearchedMarks:
    """Marks that are looked for in one place; there, none may begin another."""
    assert not any(b.startswith(a) for a, b in pairwise(sorted(marks))), marks
    return SearchedMarks(marks)
