"""The parser's states, as data: what is read in a state, and which state follows.

A :class:`Text` is passed on until one of its marks appears. A :class:`Look` decides by the first
visible characters. A :class:`Collect` gathers a whole span (a call, a header) and hands it to a
function. A following state is given by its name or as the state itself.
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
    """The kind of a text; ``HIDDEN``: thoughts that the client did not ask for."""

    CONTENT = enum.auto()
    THINKING = enum.auto()
    HIDDEN = enum.auto()


class Space(enum.Enum):
    """What happens to white space before a mark, and at the end of the answer."""

    KEEP = enum.auto()
    TRIM = enum.auto()  # dropped before a mark
    DROP = enum.auto()  # and at the end of the answer as well


class Text(msgspec.Struct, frozen=True):
    """Text of one kind. Each of ``marks`` leads to a state.

    A mark in ``begin`` does so only if that function says that what follows may be a call (None:
    not known yet), because prose that mentions the mark is text.
    """

    kind: Kind
    marks: Mapping[str, State | str] = {}
    space: Space = Space.KEEP
    begin: Mapping[str, Callable[[str], bool | None]] = {}


class Look(msgspec.Struct, frozen=True):
    """A decision: one of ``marks`` comes first, or ``otherwise`` follows.

    White space before that is dropped; with ``keep`` it is part of what follows if there is no
    mark. ``exact``: white space counts as visible. ``syntax``: this is within a call of that
    syntax.
    """

    marks: Mapping[str, State | str]
    otherwise: State | str
    keep: bool = False
    exact: bool = False
    syntax: CallSyntax | None = None


class Outcome(NamedTuple):
    """What a span turned out to be: calls and content, and the state that follows."""

    pieces: list[ToolCall | str]
    then: State | str


class Collect(msgspec.Struct, frozen=True):
    """A span that is parsed as a whole.

    It extends to one of ``ends`` or, without any, to the bracket that closes its first one;
    ``quotes`` are the characters around strings, inside which brackets do not count. ``settle``
    parses the span; None: it is text for ``failed``, which is a Text. ``cut`` parses a span that
    the end of the answer cuts off. ``item`` parses one member of a bracketed list as soon as it is
    complete (needs ``quotes``). ``strings`` are the kinds of strings inside which ``ends`` do not
    count.

    ``keep``: the mark that led here belongs to the span. ``source`` is the text before that mark,
    if a failed span began earlier. ``limit``: a text with more characters before its first bracket
    (before its end, without ``quotes``) is no such span, so that no answer is held back to its end.
    ``syntax``: the span is a call of that syntax.
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
