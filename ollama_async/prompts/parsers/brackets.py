"""Where a value ends, by its brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OPENING = re.compile(r"[(\[{]")
_IN_STRING = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'"}


class Brackets:
    """Follows the brackets of a value, wherever its text is cut."""

    def __init__(self, quotes: str) -> None:
        self._outside = re.compile(f"[{re.escape('([{)]}' + quotes)}]")
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self.opened = False
        self.in_list = False

    def first(self, text: str, at: int, stop: int) -> int:
        """Where the first opening bracket is, else ``stop``."""
        found = _OPENING.search(text, at, stop)
        return found.start() if found else stop

    def follow(self, text: str, at: int, stop: int) -> Iterator[tuple[int, int]]:
        """The place after each closing bracket, and how many are still open there."""
        if self._escaped and at < stop:
            at += 1
            self._escaped = False
        while found := self._next(text, at, stop):
            at = found.end()
            sign = found.group()
            if sign == "\\":
                self._escaped = at == stop
                at += not self._escaped
            elif self._quote:
                self._quote = ""
            elif sign in "([{":
                self._open(sign)
            elif sign not in ")]}":
                self._quote = sign if self.opened else ""
            elif self._depth:
                self._depth -= 1
                yield at, self._depth

    def _next(self, text: str, at: int, stop: int) -> re.Match[str] | None:
        pattern = _IN_STRING[self._quote] if self._quote else self._outside
        return pattern.search(text, at, stop)

    def _open(self, bracket: str) -> None:
        if not self.opened:
            self.opened = True
            self.in_list = bracket == "["
        self._depth += 1
