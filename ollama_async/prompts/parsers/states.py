"""The states that a format is made of: what is read in one, and where it leads.

A state is plain data. A :class:`Text` is passed on until one of its marks appears, a :class:`Look`
decides by the first visible characters, a :class:`Collect` gathers a whole span (a call, a
header) and hands it to a function. Where a state is to be named, it may also be given itself.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import msgspec

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.call_strings import Quote


class Kind(enum.Enum):
    """What text is; ``HIDDEN``: thoughts that the client did not ask for."""

    CONTENT = enum.auto()
    THINKING = enum.auto()
    HIDDEN = enum.auto()


class Space(enum.Enum):
    """What happens to white space before a mark, and at the end of the answer."""

    KEEP = enum.auto()
    TRIM = enum.auto()  # dropped before a mark
    DROP = enum.auto()  # and at the end of the answer as well


class Text(msgspec.Struct, frozen=True):
    """Text of one kind; each of ``marks`` leads to a state.

    A mark that is a key of ``begin`` does so only if what follows may be a call, as the value says
    (None: not known yet): prose that names the mark, in quotes or not, is text.
    """

    kind: Kind
    marks: Mapping[str, State | str] = {}
    space: Space = Space.KEEP
    begin: Mapping[str, Callable[[str], bool | None]] = {}


class Look(msgspec.Struct, frozen=True):
    """A decision: the first visible characters are one of ``marks``, or it is ``otherwise``.

    White space before them is dropped, unless it ``keep`` s it for what follows where no mark is.
    ``exact``: white space is visible too. ``syntax``: it stands within a call that is so written.
    """

    marks: Mapping[str, State | str]
    otherwise: State | str
    keep: bool = False
    exact: bool = False
    syntax: CallSyntax | None = None


class Outcome(NamedTuple):
    """What a span was: calls and text for the reader, and the state that follows."""

    pieces: list[ToolCall | str]
    then: State | str


class Collect(msgspec.Struct, frozen=True):
    """A span that only makes sense as a whole.

    It goes up to one of ``ends`` or, where there are none, to the bracket that closes the first
    one (``quotes`` are the characters around strings, in which brackets do not count).
    ``settle`` says what the span was; None: nothing, so it is text for ``failed``, a Text.
    ``cut`` does the same with a span that the end of the answer cuts off. ``item`` reads one member
    of a bracketed list as soon as it is complete (needs ``quotes``).

    ``strings``: how strings are written in it, in which ``ends`` do not count.

    ``keep``: the mark that led here belongs to the span. ``source`` is what came before that mark,
    where a failed span began earlier. ``limit``: with more characters than that before its first
    bracket (its end, where there are no ``quotes``) it is no such span; this is against answers
    that would be held back to their end. ``syntax``: the span is a call that is so written.
    """

    settle: Callable[[str], Outcome | None]
    cut: Callable[[str], Outcome | None]
    ends: tuple[str, ...] = ()
    quotes: str = ""
    item: Callable[[str], ToolCall | None] | None = None
    strings: tuple[Quote, ...] = ()
    failed: State | str = "content"
    keep: bool = False
    source: str = ""
    limit: int | None = None
    syntax: CallSyntax | None = None


State = Text | Look | Collect


# ----------------------------------------------------------------- marks


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
