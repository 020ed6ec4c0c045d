"""The machine behind every parser: it reads an answer through a table of states, as it arrives.

Each character is looked at a bounded number of times, and no more is held back than what may
still become a mark or a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from ollama_async.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax, OpenCall
from ollama_async.prompts.parsers.brackets import Brackets
from ollama_async.prompts.parsers.search import anywhere, in_one_place
from ollama_async.prompts.parsers.states import Collect, Kind, Look, Outcome, Space, State, Text
from ollama_async.prompts.port import Content, Part, Thinking

_VISIBLE = re.compile(r"\S")


class Scanner:
    """Reads one answer through a table of states; see :class:`ollama_async.prompts.port.Parser`."""

    def __init__(self, states: Mapping[str, State], start: State | str) -> None:
        self._states = states
        self._parts: list[Part] = []
        self._kind = Kind.HIDDEN
        self._run: list[str] = []
        self._calls = 0
        self._opened = 0
        self._syntax: CallSyntax | None = None  # of the call that is being read
        self._pending = ""
        self._reader = self._enter(_Move(start))

    def feed(self, text: str) -> list[Part]:
        self._read(self._pending + text, last=False)
        return self._take()

    def finish(self) -> list[Part]:
        self._read(self._pending, last=True)
        return self._take()

    @property
    def open_call(self) -> OpenCall | None:
        if self._syntax is None:
            return None
        return OpenCall(self._syntax, self._opened, self._reader.read_so_far() + self._pending)

    def say(self, kind: Kind, text: str) -> None:
        """``text`` is certain; neighbours of one kind become one part."""
        if not text:
            return
        if kind is not self._kind:
            self._end_run()
            self._kind = kind
        self._run.append(text)

    def call(self, call: ToolCall) -> None:
        """``call`` is certain; it gets the next index."""
        self._end_run()
        function = msgspec.structs.replace(call.function, index=self._calls)
        self._parts.append(ToolCall(function, id=call.id))
        self._calls += 1

    def _read(self, text: str, *, last: bool) -> None:
        at = 0
        while True:
            at, move = self._reader.read(text, at, last=last)
            if move is None:
                break
            self._reader = self._enter(move)
        self._pending = text[at:]

    def _enter(self, move: _Move) -> _Reader:
        state = self._states[move.to] if isinstance(move.to, str) else move.to
        syntax = None if isinstance(state, Text) else state.syntax
        if syntax is not None and self._syntax is None:
            self._opened += 1
        self._syntax = syntax
        if isinstance(state, Text):
            return _TextReader(self, state, move)
        if isinstance(state, Look):
            return _LookReader(state, move)
        return _CollectReader(self, state, move)

    def _end_run(self) -> None:
        text = "".join(self._run)
        self._run.clear()
        if text and self._kind is Kind.CONTENT:
            self._parts.append(Content(text))
        elif text and self._kind is Kind.THINKING:
            self._parts.append(Thinking(text))

    def _take(self) -> list[Part]:
        self._end_run()
        parts, self._parts = self._parts, []
        return parts


class _Move(NamedTuple):
    """The way into a state: by which mark, after which white space, with which text to begin."""

    to: State | str
    mark: str = ""
    space: str = ""
    text: str = ""


class _Reader(Protocol):
    def read(self, text: str, at: int, *, last: bool) -> tuple[int, _Move | None]:
        """Reads ``text`` from ``at`` on; how far it came, and where to go on from there.

        Without a move, what is left may be the beginning of a mark and comes again with the text
        that follows it; nothing is left if this is the ``last`` text.
        """

    def read_so_far(self) -> str:
        """What was read and not passed on, mark and white space before it left out."""


class _TextReader:
    """Inside a :class:`Text`; keeps back white space at its end as the state says."""

    def __init__(self, scanner: Scanner, state: Text, move: _Move) -> None:
        self._scanner = scanner
        self._state = state
        self._marks = anywhere(tuple(state.marks))
        self._space: list[str] = []
        self._say(move.space + move.text)

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, _Move | None]:
        found = self._marks.search(text, at)
        if found:
            self._say(text[at : found.start()])
            mark = found.group()
            return found.end(), _Move(self._state.marks[mark], mark, "".join(self._space))
        end = len(text) if last else self._marks.certain(text, at)
        self._say(text[at:end])
        if last and self._state.space is Space.TRIM:
            self._scanner.say(self._state.kind, "".join(self._space))
        return end, None

    def read_so_far(self) -> str:
        return ""

    def _say(self, text: str) -> None:
        if self._state.space is Space.KEEP:
            self._scanner.say(self._state.kind, text)
            return
        visible = text.rstrip()
        if visible:
            self._scanner.say(self._state.kind, "".join(self._space) + visible)
            self._space.clear()
        self._space.append(text[len(visible) :])


class _LookReader:
    """Before the first visible characters that a :class:`Look` decides by."""

    def __init__(self, state: Look, move: _Move) -> None:
        self._state = state
        self._marks = in_one_place(tuple(state.marks))
        self._space = [move.space]

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, _Move | None]:
        if not self._state.exact:
            at = self._skip(text, at)
        if at == len(text) and not last:
            return at, None
        space = "".join(self._space) if self._state.keep else ""
        found = self._marks.match(text, at)
        if found:
            mark = found.group()
            return found.end(), _Move(self._state.marks[mark], mark, space)
        if self._marks.may_begin(text, at) and not last:
            return at, None
        return at, _Move(self._state.otherwise, space=space)

    def read_so_far(self) -> str:
        return "".join(self._space[1:])

    def _skip(self, text: str, at: int) -> int:
        visible = _VISIBLE.search(text, at)
        end = visible.start() if visible else len(text)
        self._space.append(text[at:end])
        return end


class _CollectReader:
    """Inside a :class:`Collect`."""

    def __init__(self, scanner: Scanner, state: Collect, move: _Move) -> None:
        self._scanner = scanner
        self._state = state
        self._before = move.space + state.source + ("" if state.keep else move.mark)
        self._marks = anywhere(state.ends)
        self._brackets = Brackets(state.quotes)
        self._span: list[str] = []
        self._size = 0
        self._unread: list[str] = []  # the span without the members that were read
        self._read_members = 0
        if state.keep:
            self._advance(move.mark, 0, len(move.mark))

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, _Move | None]:
        allowed = self._allowed(at)
        end = self._marks.search(text, at, None if self._state.quotes else allowed)
        stop = end.start() if end else self._marks.certain(text, at)
        if allowed is not None and allowed <= self._reach(text, at, stop, allowed):
            self._store(text[at:allowed])
            return allowed, self._fail("")
        closed = self._advance(text, at, stop)
        if closed is not None:
            return closed, self._settled(self._state.settle, "")
        if end:
            return end.end(), self._settled(self._state.settle, end.group())
        if last:
            return len(text), self._settled(self._state.cut, text[stop:])
        return stop, None

    def read_so_far(self) -> str:
        return "".join(self._span)

    def _allowed(self, at: int) -> int | None:
        """The place where the span is too long to be one; None: it is not."""
        if self._state.limit is None or self._brackets.opened:
            return None
        return at + self._state.limit + 1 - self._size

    def _reach(self, text: str, at: int, stop: int, allowed: int) -> int:
        """How far the span goes without what shows that it is one."""
        if not self._state.quotes:
            return stop
        return self._brackets.first(text, at, min(stop, allowed))

    def _advance(self, text: str, at: int, stop: int) -> int | None:
        """Store the span up to ``stop``; the place where its value closes, if that ends it."""
        if self._state.quotes:
            for place, depth in self._brackets.follow(text, at, stop):
                self._store(text[at:place])
                at = place
                if depth == 0 and not self._state.ends:
                    return at
                self._take_member(depth)
        self._store(text[at:stop])
        return None

    def _store(self, text: str) -> None:
        self._span.append(text)
        self._unread.append(text)
        self._size += len(text)

    def _take_member(self, depth: int) -> None:
        """What has just been stored may complete a member of the list."""
        if depth != 1 or self._state.item is None or not self._brackets.in_list:
            return
        call = self._state.item("".join(self._unread).lstrip("[, \t\r\n"))
        if call is None:  # from here on the whole has to make sense
            self._brackets.in_list = False
            return
        self._scanner.call(call)
        self._read_members += 1
        self._unread.clear()

    def _settled(self, settle: Callable[[str], Outcome | None], end: str) -> _Move:
        outcome = settle("".join(self._span))
        if outcome is None:
            return self._fail(end)
        for piece in self._new(outcome.pieces):
            if isinstance(piece, str):
                self._scanner.say(Kind.CONTENT, piece)
            else:
                self._scanner.call(piece)
        return _Move(outcome.then, end)

    def _new(self, pieces: list[ToolCall | str]) -> list[ToolCall | str]:
        """Without the members that were passed on before; they are the first ones."""
        return pieces[self._read_members :]

    def _fail(self, end: str) -> _Move:
        unread = "".join(self._unread)
        if not self._read_members:
            return _Move(self._state.failed, text=self._before + unread + end)
        return _Move(self._state.failed, text=unread.strip("], \t\r\n"))
