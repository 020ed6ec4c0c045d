"""Where the strings of a call are: a mark inside one does not end the call.

A string of JSON shows by itself where it ends. A value between tags does not, since nothing in it
is escaped: there a closing tag counts if what comes next can follow a value, so that values may
hold closing tags and marks. What servers with a plain search read as the end of the call is kept
in mind all the same: where the strings do not work out, the call ended there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple

import msgspec

_VISIBLE = re.compile(r"\S")


class Quote(msgspec.Struct, frozen=True):
    """One way to write strings: what stands around them.

    ``before``: the characters that one may follow; empty: any. ``after``: what may follow one,
    besides the end of the call. ``strict``: with anything else behind a string, the call is
    broken; otherwise the string goes on. ``escapes``: the character behind a backslash means
    nothing. ``never`` breaks a call wherever it is in a string, ``opening`` only if the string
    also holds something that closes one, or ends a call. ``into``: the mark with which the string
    turns out to be one of another kind.
    """

    open: str
    close: str
    before: str = ""
    after: tuple[str, ...] = ()
    strict: bool = False
    escapes: bool = False
    never: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()
    into: str = ""


JSON_STRINGS = (
    Quote(
        '"',
        '"',
        before="{[,:",
        after=(",", ":", "}", "]"),
        strict=True,
        escapes=True,
        never=("\n",),
    ),
)


def python_strings(*opening: str) -> tuple[Quote, ...]:
    """Those of Python; ``opening`` are the marks around the calls."""
    return tuple(
        Quote(
            sign,
            sign,
            before="=([{,:",
            after=(",", ":", ")", "]", "}"),
            escapes=True,
            opening=opening,
        )
        for sign in "\"'"
    )


def marked_strings(mark: str, *opening: str) -> tuple[Quote, ...]:
    """Those with the same mark at both ends."""
    return (Quote(mark, mark, after=(",", "}", "]"), opening=opening),)


def values(open_mark: str, close_mark: str, *others: str, after: str = "") -> tuple[Quote, ...]:
    """Those between two tags; ``others`` are opening marks that no value holds. What follows the
    last one is ``after``, if not the end of the call.
    """
    opening = (open_mark, *others)
    follows = (open_mark, after) if after else (open_mark,)
    return (Quote(open_mark, close_mark, after=follows, opening=opening),)


class End(msgspec.Struct, frozen=True):
    """An end of the call, at a place in the text that was followed."""

    at: int
    mark: str


class Strings:
    """Follows the strings of one call, wherever its text is cut.

    ``inside``: the ends that were seen in strings. ``broken``: the text has no such strings.
    """

    def __init__(self, quotes: tuple[Quote, ...], ends: tuple[str, ...]) -> None:
        self.inside: list[End] = []
        self.broken = False
        self._ends = ends
        self._quotes = {quote.open: quote for quote in quotes}
        self._marks = _marks(quotes, ends)
        self._passed = 0
        self._last = ""  # visible character outside of strings
        self._quote: Quote | None = None
        self._is_closed = False
        self._is_escaped = False
        self._holds_closing = self._holds_opening = False

    @property
    def are_open(self) -> bool:
        """Whether one does not end."""
        return self._quote is not None and not self._is_closed

    def certain(self, text: str, at: int) -> int:
        """Where that end of ``text`` begins that cannot be followed yet."""
        return self._marks.all.unfinished(text, at)

    def follow(self, text: str, at: int, stop: int) -> tuple[int, str]:
        """How far it came, up to ``stop``: to an end outside of strings, which is returned too, or
        to where it became ``broken``.
        """
        begin = at
        end = ""
        while at < stop and not end and not self.broken:
            if self._quote is None:
                at, end = self._outside(text, at, stop)
            elif self._is_closed:
                at = self._after(self._quote, text, at, stop)
            else:
                at = self._within(self._quote, text, at, stop, self._passed - begin)
        self._passed += at - begin
        return at, end

    def _outside(self, text: str, at: int, stop: int) -> tuple[int, str]:
        found = self._marks.outside.search(text, at)
        place = found.start() if found and found.start() < stop else stop
        self._last = text[at:place].rstrip()[-1:] or self._last
        if found is None or place == stop:
            return stop, ""
        mark = found.group()
        if mark in self._ends:
            return place, mark
        quote = self._quotes[mark]
        if not quote.before or not self._last or self._last in quote.before:
            self._quote = quote
        self._last = mark[-1]
        return found.end(), ""

    def _within(self, quote: Quote, text: str, at: int, stop: int, offset: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return at + 1
        found = self._marks.within[quote.open].search(text, at)
        if found is None or found.start() >= stop:
            return stop
        mark = found.group()
        if mark == quote.close:
            self._is_closed = True
        elif mark == "\\" and quote.escapes:
            self._is_escaped = True
        elif mark in quote.never:
            self.broken = True
        elif mark == quote.into:
            self._quote = self._quotes[mark]
        elif mark in self._ends:
            self.inside.append(End(found.start() + offset, mark))
            self._hold(closing=True)
        else:
            self._hold(opening=True)
        return found.end()

    def _after(self, quote: Quote, text: str, at: int, stop: int) -> int:
        visible = _VISIBLE.search(text, at, stop)
        if visible is None:
            return stop
        self._is_closed = False
        if self._marks.behind[quote.open].match(text, visible.start()):
            self._quote = None
            self._last = quote.close[-1]
            self._holds_closing = self._holds_opening = False
        elif quote.strict:
            self.broken = True
        else:
            self._hold(closing=True)
        return visible.start()

    def _hold(self, *, closing: bool = False, opening: bool = False) -> None:
        self._holds_closing |= closing
        self._holds_opening |= opening
        self.broken |= self._holds_closing and self._holds_opening


class _Marks(NamedTuple):
    """What is looked for in each situation, by the opening mark of the string; and ``all``."""

    outside: SearchedMarks
    within: dict[str, SearchedMarks]
    behind: dict[str, SearchedMarks]
    all: SearchedMarks


@lru_cache(maxsize=128)
def _marks(quotes: tuple[Quote, ...], ends: tuple[str, ...]) -> _Marks:
    outside = (*ends, *(quote.open for quote in quotes))
    within = {quote.open: _marks_within(quote, ends) for quote in quotes}
    behind = {quote.open: tuple(dict.fromkeys((*quote.after, *ends))) for quote in quotes}
    everything = dict.fromkeys(chain(outside, *within.values(), *behind.values()))
    return _Marks(
        in_one_place(outside),
        {name: in_one_place(marks) for name, marks in within.items()},
        {name: in_one_place(marks) for name, marks in behind.items()},
        in_one_place(tuple(everything)),
    )


def _marks_within(quote: Quote, ends: tuple[str, ...]) -> tuple[str, ...]:
    escape = ("\\",) if quote.escapes else ()
    into = (quote.into,) if quote.into else ()
    marks = (*ends, quote.close, *escape, *into, *quote.never, *quote.opening)
    return tuple(dict.fromkeys(marks))


# ----------------------------------------------------------------- delimiters


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
