"""The states that a format is made of: what is read in one, and where it leads.

A state is plain data. A :class:`Text` is passed on until one of its marks appears, a :class:`Look`
decides by the first visible characters, a :class:`Collect` gathers a whole span (a call, a
header) and hands it to a function. Where a state is to be named, it may also be given itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import Quote


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
