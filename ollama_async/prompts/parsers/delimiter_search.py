"""Finds delimiters in a text of which more is to come, outside of the strings of a call.

A delimiter inside a string does not end a call. A JSON string shows its own end. A value between
tags does not, because nothing in it is escaped: a closing tag counts if what comes next can follow
a value, so values may hold closing tags and delimiters. The first end that a plain search would
have found is recorded: if the strings turn out to be broken, the call ended there.
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
    """A kind of string: the texts around it.

    ``before``: the characters that it may follow; empty: any. ``after``: what may follow it,
    besides the end of the call. ``strict``: if anything else follows, the call is broken; otherwise
    the string goes on. ``escapes``: the character after a backslash is literal. ``never`` breaks
    the call anywhere in a string; ``opening`` breaks it only if the string also holds something
    that closes a string or ends a call. ``into``: the tag that turns the string into another kind.
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
    Quote('"', '"', before="{[,:", after=tuple(",:}]"), strict=True, escapes=True, never=("\n",)),
)


def python_strings(*opening: str) -> tuple[Quote, ...]:
    """Python's strings; ``opening`` are the opening tags of calls."""
    return tuple(
        Quote(sign, sign, before="=([{,:", after=tuple(",:)]}"), escapes=True, opening=opening)
        for sign in "\"'"
    )


def quoted_strings(tag: str, *opening: str) -> tuple[Quote, ...]:
    """Strings with the same tag at both ends."""
    return (Quote(tag, tag, after=(",", "}", "]"), opening=opening),)


def tagged_strings(
    open_tag: str, close_tag: str, *others: str, after: str = ""
) -> tuple[Quote, ...]:
    """Values between two tags; ``others`` are opening tags that no value holds. The last value is
    followed by ``after`` or by the end of the call.
    """
    opening = (open_tag, *others)
    follows = (open_tag, after) if after else (open_tag,)
    return (Quote(open_tag, close_tag, after=follows, opening=opening),)


class Strings:
    """Tracks the strings of one call, wherever its text is cut.

    ``inside``: the ends found in strings, by place and tag. ``broken``: there are no such strings.
    """

    def __init__(self, quotes: tuple[Quote, ...], ends: tuple[str, ...]) -> None:
        self.inside: list[tuple[int, str]] = []
        self.broken = False
        self._ends = ends
        self._quotes = {quote.open: quote for quote in quotes}
        self._tags = _tags(quotes, ends)
        self._passed = 0
        self._last = ""  # visible character outside of strings
        self._quote: Quote | None = None
        self._is_closed = False
        self._is_escaped = False
        self._holds_closing = self._holds_opening = False

    @property
    def are_open(self) -> bool:
        """Whether a string has not ended."""
        return self._quote is not None and not self._is_closed

    def certain(self, text: str, at: int) -> int:
        """The place in ``text`` from which on it cannot be tracked yet."""
        return self._tags.all.unfinished(text, at)

    def follow(self, text: str, at: int, stop: int) -> tuple[int, str]:
        """Track ``text`` up to ``stop``, to an end outside of strings, or to where the strings are
        ``broken``. Returns the place and the end.
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
        found = self._tags.outside.search(text, at)
        place = found.start() if found and found.start() < stop else stop
        self._last = text[at:place].rstrip()[-1:] or self._last
        if found is None or place == stop:
            return stop, ""
        tag = found.group()
        if tag in self._ends:
            return place, tag
        quote = self._quotes[tag]
        if not quote.before or not self._last or self._last in quote.before:
            self._quote = quote
        self._last = tag[-1]
        return found.end(), ""

    def _within(self, quote: Quote, text: str, at: int, stop: int, offset: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return at + 1
        found = self._tags.within[quote.open].search(text, at)
        if found is None or found.start() >= stop:
            return stop
        tag = found.group()
        if tag == quote.close:
            self._is_closed = True
        elif tag == "\\" and quote.escapes:
            self._is_escaped = True
        elif tag in quote.never:
            self.broken = True
        elif tag == quote.into:
            self._quote = self._quotes[tag]
        elif tag in self._ends:
            self.inside.append((found.start() + offset, tag))
            self._hold(closing=True)
        else:
            self._hold(opening=True)
        return found.end()

    def _after(self, quote: Quote, text: str, at: int, stop: int) -> int:
        visible = _VISIBLE.search(text, at, stop)
        if visible is None:
            return stop
        self._is_closed = False
        if self._tags.behind[quote.open].match(text, visible.start()):
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


class _Tags(NamedTuple):
    """The tags to search for outside and, by its opening tag, inside a string; and ``all``."""

    outside: TagSearch
    within: dict[str, TagSearch]
    behind: dict[str, TagSearch]
    all: TagSearch


@lru_cache(maxsize=128)
def _tags(quotes: tuple[Quote, ...], ends: tuple[str, ...]) -> _Tags:
    outside = (*ends, *(quote.open for quote in quotes))
    within, behind = {}, {}
    for quote in quotes:
        others = (*(("\\",) if quote.escapes else ()), *((quote.into,) if quote.into else ()))
        tags = (*ends, quote.close, *others, *quote.never, *quote.opening)
        within[quote.open] = tuple(dict.fromkeys(tags))
        behind[quote.open] = tuple(dict.fromkeys((*quote.after, *ends)))
    everything = dict.fromkeys(chain(outside, *within.values(), *behind.values()))
    return _Tags(
        in_one_place(outside),
        {name: in_one_place(tags) for name, tags in within.items()},
        {name: in_one_place(tags) for name, tags in behind.items()},
        in_one_place(tuple(everything)),
    )


# ----------------------------------------------------------------- delimiters


class TagSearch:
    """Finds tags, and the end of a text that may still become one."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, tags)) or r"(?!)")
        self._sorted = sorted(tags)
        self._size = max(map(len, tags), default=0)

    def search(self, text: str, at: int, before: int | None = None) -> re.Match[str] | None:
        """The first tag that begins ``before`` a place."""
        if not self._size:
            return None
        return self._pattern.search(text, at, len(text) if before is None else before + self._size)

    def match(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.match(text, at)

    def may_begin(self, text: str, at: int) -> bool:
        """Whether the rest of the text is the beginning of a tag."""
        return len(text) - at < self._size and self._is_beginning(text[at:])

    def certain(self, text: str, at: int) -> int:
        """The place from which on ``text`` may become a tag, or is one."""
        for place in range(max(at, len(text) - self._size + 1), len(text)):
            if self._is_beginning(text[place:]):
                return place
        return len(text)

    def unfinished(self, text: str, at: int) -> int:
        """As :meth:`certain`, but a complete tag at the end of ``text`` cannot grow."""
        place = self.certain(text, at)
        return len(text) if text[place:] in self._sorted else place

    def _is_beginning(self, text: str) -> bool:
        place = bisect_left(self._sorted, text)
        return place < len(self._sorted) and self._sorted[place].startswith(text)


@lru_cache(maxsize=128)
def anywhere(tags: tuple[str, ...]) -> TagSearch:
    """Tags to search for. None may contain another: the cuts in the text would decide."""
    found = in_one_place(tags)
    assert not any(found.search(tag, 1) for tag in tags), tags
    return found


@lru_cache(maxsize=128)
def in_one_place(tags: tuple[str, ...]) -> TagSearch:
    """Tags to match at one place. None may be the beginning of another."""
    assert not any(b.startswith(a) for a, b in pairwise(sorted(tags))), tags
    return TagSearch(tags)
