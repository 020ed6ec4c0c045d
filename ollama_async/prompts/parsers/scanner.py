"""The scanner behind every parser: it reads an answer through a table of states while it arrives.

Each character is read a bounded number of times. Nothing is held back but what may still become a
mark or a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec

from ollama_async.core.conversation import Thought, ToolCall
from ollama_async.prompts.call_syntax import CallSyntax, OpenCall
from ollama_async.prompts.output_format import Part
from ollama_async.prompts.parsers.call_collector import CollectReader, Move
from ollama_async.prompts.parsers.delimiter_search import anywhere, in_one_place
from ollama_async.prompts.parsers.states import Collect, Kind, Look, Space, State, Text

AGAIN_LIMIT = 4096
"""Characters that may be read again, in addition to the length of the answer. Beyond that, ends of
calls are found by a plain search; this bounds answers of nothing but broken strings.
"""

_VISIBLE = re.compile(r"\S")
AHEAD_LIMIT = 80
"""Characters after a mark that may decide whether it is one, most of them white space."""


class Scanner:
    """Reads one answer through a table of states; see :class:`.Parser`."""

    def __init__(self, states: Mapping[str, State], start: State | str) -> None:
        self._states = states
        self._parts: list[Part] = []
        self._kind = Kind.HIDDEN
        self._run: list[str] = []
        self._calls = 0
        self._opened = 0
        self._syntax: CallSyntax | None = None  # of the call that is being read
        self._begun = ""  # what of the call was read in states before this one
        self._pending = ""
        self._passed = 0  # characters of the answer before the pending ones
        self._again = 0  # characters that were read more than once
        self._reader = self._enter(Move(start), 0)

    def feed(self, text: str) -> list[Part]:
        self._read(self._pending + text, last=False)
        return self._take()

    def finish(self) -> list[Part]:
        self._read(self._pending, last=True)
        return self._take()

    @property
    def call_number(self) -> int:
        return 0 if self._syntax is None else self._opened

    @property
    def open_call(self) -> OpenCall | None:
        if self._syntax is None:
            return None
        text = self._begun + self._reader.read_so_far() + self._pending
        return OpenCall(self._syntax, text)

    def emit_text(self, kind: Kind, text: str) -> None:
        """Emit a certain ``text``; adjacent texts of one kind become one part."""
        if not text:
            return
        if kind is not self._kind:
            self._end_run()
            self._kind = kind
        self._run.append(text)

    def emit_call(self, call: ToolCall) -> None:
        """Emit a certain ``call``; it gets the next index."""
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
            if move.again:
                text, at = self._step_back(text, at, move.again)
            self._reader = self._enter(move, self._passed + at)
        self._pending = text[at:]
        self._passed += at

    def _step_back(self, text: str, at: int, again: str) -> tuple[str, int]:
        """The text and the place in it from which to read on, so that ``again``, which came before
        ``at``, is read once more.
        """
        self._again += len(again)
        if len(again) <= at:
            return text, at - len(again)
        self._passed -= len(again) - at
        return again + text[at:], 0

    def _enter(self, move: Move, at: int) -> _Reader:
        state = self._states[move.to] if isinstance(move.to, str) else move.to
        self._follow_call(state, move)
        if isinstance(state, Text):
            return _TextReader(self, state, move)
        if isinstance(state, Look):
            return _LookReader(state, move)
        return CollectReader(self, state, move, plainly=self._again > at + AGAIN_LIMIT)

    def _follow_call(self, state: State, move: Move) -> None:
        """Track whether ``state`` begins a call or continues one."""
        syntax = None if isinstance(state, Text) else state.syntax
        if syntax is None or self._syntax is None:
            self._opened += syntax is not None
            self._begun = ""
        else:
            is_kept = isinstance(state, Collect) and state.keep
            self._begun += self._reader.read_so_far() + ("" if is_kept else move.mark)
        self._syntax = syntax

    def _end_run(self) -> None:
        text = "".join(self._run)
        self._run.clear()
        if text and self._kind is Kind.CONTENT:
            self._parts.append(text)
        elif text and self._kind is Kind.THINKING:
            self._parts.append(Thought(text))

    def _take(self) -> list[Part]:
        self._end_run()
        parts, self._parts = self._parts, []
        return parts


class _Reader(Protocol):
    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        """Read ``text`` from ``at`` on. Returns how far it came, and the move to the next state.

        Without a move, the rest may be the beginning of a mark; it is passed again together with
        the text that follows. There is no rest if this is the ``last`` text.
        """

    def read_so_far(self) -> str:
        """What was read and not passed on, mark and white space before it left out."""


class _TextReader:
    """Inside a :class:`Text`; holds back white space at its end as the state requires."""

    def __init__(self, scanner: Scanner, state: Text, move: Move) -> None:
        self._scanner = scanner
        self._state = state
        self._marks = anywhere(tuple(state.marks))
        self._space: list[str] = []
        self._say(move.space + move.lead + move.text)

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        while found := self._marks.search(text, at):
            opens = self._opens(found.group(), text[found.end() : found.end() + AHEAD_LIMIT])
            if opens is None and not last:
                self._say(text[at : found.start()])
                return found.start(), None
            if opens is not False:
                self._say(text[at : found.start()])
                mark = found.group()
                return found.end(), Move(self._state.marks[mark], mark, "".join(self._space))
            self._say(text[at : found.end()])
            at = found.end()
        end = len(text) if last else self._marks.certain(text, at)
        self._say(text[at:end])
        if last and self._state.space is Space.TRIM:
            self._scanner.emit_text(self._state.kind, "".join(self._space))
        return end, None

    def read_so_far(self) -> str:
        return ""

    def _opens(self, mark: str, ahead: str) -> bool | None:
        """Whether ``mark`` is more than text, by what is ``ahead``; None: that is not known yet."""
        may_begin = self._state.begin.get(mark)
        if may_begin is None:
            return True
        found = may_begin(ahead)
        return False if found is None and len(ahead) >= AHEAD_LIMIT else found

    def _say(self, text: str) -> None:
        if self._state.space is Space.KEEP:
            self._scanner.emit_text(self._state.kind, text)
            return
        visible = text.rstrip()
        if visible:
            self._scanner.emit_text(self._state.kind, "".join(self._space) + visible)
            self._space.clear()
        self._space.append(text[len(visible) :])


class _LookReader:
    """Before the first visible characters that a :class:`Look` decides by."""

    def __init__(self, state: Look, move: Move) -> None:
        self._state = state
        self._marks = in_one_place(tuple(state.marks))
        self._space = [move.space + move.lead]

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        if not self._state.exact:
            at = self._skip(text, at)
        if at == len(text) and not last:
            return at, None
        space, lead = ("", "") if not self._state.keep else (self._space[0], self.read_so_far())
        found = self._marks.match(text, at)
        if found:
            mark = found.group()
            return found.end(), Move(self._state.marks[mark], mark, space, lead=lead)
        if self._marks.may_begin(text, at) and not last:
            return at, None
        return at, Move(self._state.otherwise, space=space, lead=lead)

    def read_so_far(self) -> str:
        return "".join(self._space[1:])

    def _skip(self, text: str, at: int) -> int:
        visible = _VISIBLE.search(text, at)
        end = visible.start() if visible else len(text)
        self._space.append(text[at:end])
        return end
