"""The parser's states as data, and the readers of those that hold text.

A :class:`Text` is passed on until one of its tags appears. A :class:`Look` decides by the first
visible characters. A :class:`Collect` gathers a whole span (a call, a header) and hands it to a
function. A following state is given by its name or as the state itself.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.output_format import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import Quote, anywhere, in_one_place

AHEAD_LIMIT = 80
"""Characters after a tag that may decide whether it is one, most of them white space."""

_VISIBLE = re.compile(r"\S")


class Kind(enum.Enum):
    """The kind of a text; ``HIDDEN``: thoughts that the client did not request."""

    CONTENT = enum.auto()
    THINKING = enum.auto()
    HIDDEN = enum.auto()


class Space(enum.Enum):
    """What happens to white space before a tag, and at the end of the answer."""

    KEEP = enum.auto()
    TRIM = enum.auto()  # dropped before a tag
    DROP = enum.auto()  # and at the end of the answer as well


class Text(msgspec.Struct, frozen=True):
    """Text of one kind. Each of ``tags`` leads to a state.

    A tag in ``begin`` does so only if that function finds that what follows may be a call (None:
    not known yet), because prose may mention the tag.
    """

    kind: Kind
    tags: Mapping[str, State | str] = {}
    space: Space = Space.KEEP
    begin: Mapping[str, Callable[[str], bool | None]] = {}


class Look(msgspec.Struct, frozen=True):
    """A decision: one of ``tags`` comes first, or ``otherwise`` follows.

    White space before that is dropped; with ``keep`` it is part of what follows if there is no tag.
    ``exact``: white space counts as visible. ``syntax``: this is within a call of that syntax.
    """

    tags: Mapping[str, State | str]
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
    ``quotes`` are the characters around strings, inside which brackets do not count. ``parse``
    parses the span; None: it is text for ``failed``, which is a Text. ``parse_cut`` parses a span
    that the end of the answer cuts off. ``item`` parses one member of a bracketed list as soon as
    it is complete (needs ``quotes``). ``strings`` are the kinds of strings inside which ``ends`` do
    not count.

    ``keep``: the tag that led here belongs to the span. ``source`` is the text before that tag, if
    a failed span began earlier. ``limit``: a text with more characters before its first bracket
    (before its end, without ``quotes``) is no such span, so that no answer is held back to its end.
    ``syntax``: the span is a call of that syntax.
    """

    parse: Callable[[str], Outcome | None]
    parse_cut: Callable[[str], Outcome | None]
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


class Move(NamedTuple):
    """The transition into a state: the tag, the white space before it, the state's first text.

    ``lead`` is white space between the tag and the state. ``again`` is text that was read before
    and that the state reads once more before what follows.
    """

    to: State | str
    tag: str = ""
    space: str = ""
    text: str = ""
    again: str = ""
    lead: str = ""


class Sink(Protocol):
    """Takes what is certain."""

    def emit_text(self, kind: Kind, text: str) -> None: ...

    def emit_call(self, call: ToolCall) -> None: ...


class Reader(Protocol):
    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        """Read ``text`` from ``at`` on. Returns how far it came, and the move to the next state.

        Without a move, the rest may be the beginning of a tag; it is passed again together with the
        text that follows. There is no rest if this is the ``last`` text.
        """

    def read_so_far(self) -> str:
        """What was read and not passed on, tag and white space before it left out."""


class TextReader:
    """Inside a :class:`Text`; holds back white space at its end as the state requires."""

    def __init__(self, sink: Sink, state: Text, move: Move) -> None:
        self._sink = sink
        self._state = state
        self._tags = anywhere(tuple(state.tags))
        self._space: list[str] = []
        self._emit(move.space + move.lead + move.text)

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        while found := self._tags.search(text, at):
            tag, start, end = found.group(), found.start(), found.end()
            opens = self._opens(tag, text[end : end + AHEAD_LIMIT])
            if opens is None and not last:
                self._emit(text[at:start])
                return start, None
            if opens is not False:
                self._emit(text[at:start])
                return end, Move(self._state.tags[tag], tag, "".join(self._space))
            self._emit(text[at:end])
            at = end
        end = len(text) if last else self._tags.certain(text, at)
        self._emit(text[at:end])
        if last and self._state.space is Space.TRIM:
            self._sink.emit_text(self._state.kind, "".join(self._space))
        return end, None

    def read_so_far(self) -> str:
        return ""

    def _opens(self, tag: str, ahead: str) -> bool | None:
        """Whether ``tag`` is more than text, by what is ``ahead``; None: that is not known yet."""
        may_begin = self._state.begin.get(tag)
        found = may_begin(ahead) if may_begin else True
        return False if found is None and len(ahead) >= AHEAD_LIMIT else found

    def _emit(self, text: str) -> None:
        if self._state.space is Space.KEEP:
            self._sink.emit_text(self._state.kind, text)
            return
        visible = text.rstrip()
        if visible:
            self._sink.emit_text(self._state.kind, "".join(self._space) + visible)
            self._space.clear()
        self._space.append(text[len(visible) :])


class LookReader:
    """Before the first visible characters that a :class:`Look` decides by."""

    def __init__(self, state: Look, move: Move) -> None:
        self._state = state
        self._tags = in_one_place(tuple(state.tags))
        self._before = move.space + move.lead
        self._space: list[str] = []

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        if not self._state.exact:
            visible = _VISIBLE.search(text, at)
            end = visible.start() if visible else len(text)
            self._space.append(text[at:end])
            at = end
        if at == len(text) and not last:
            return at, None
        space, lead = (self._before, self.read_so_far()) if self._state.keep else ("", "")
        found = self._tags.match(text, at)
        if found:
            tag = found.group()
            return found.end(), Move(self._state.tags[tag], tag, space, lead=lead)
        if self._tags.may_begin(text, at) and not last:
            return at, None
        return at, Move(self._state.otherwise, space=space, lead=lead)

    def read_so_far(self) -> str:
        return "".join(self._space)
