"""The scanner behind every parser: it reads an answer through a table of states while it arrives.

Each character is read a bounded number of times. Nothing is held back but what may still become a
tag or a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from ollama_async.core.conversation import Thought, ToolCall
from ollama_async.prompts.output_format import CallSyntax, OpenCall, Part
from ollama_async.prompts.parsers.delimiter_search import Strings, anywhere
from ollama_async.prompts.parsers.states import (
    Collect,
    Kind,
    Look,
    LookReader,
    Move,
    Outcome,
    Reader,
    Sink,
    State,
    Text,
    TextReader,
)

AGAIN_LIMIT = 4096
"""Characters that may be read again, in addition to the length of the answer. Beyond that, ends of
calls are found by a plain search; this bounds answers of nothing but broken strings.
"""


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
        return self._read(self._pending + text, last=False)

    def finish(self) -> list[Part]:
        return self._read(self._pending, last=True)

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
        self._parts.append(replace(call, function=replace(call.function, index=self._calls)))
        self._calls += 1

    def _read(self, text: str, *, last: bool) -> list[Part]:
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
        self._end_run()
        parts, self._parts = self._parts, []
        return parts

    def _step_back(self, text: str, at: int, again: str) -> tuple[str, int]:
        """The text and the place in it from which to read on, so that ``again``, which came before
        ``at``, is read once more.
        """
        self._again += len(again)
        if len(again) <= at:
            return text, at - len(again)
        self._passed -= len(again) - at
        return again + text[at:], 0

    def _enter(self, move: Move, at: int) -> Reader:
        state = self._states[move.to] if isinstance(move.to, str) else move.to
        self._follow_call(state, move)
        if isinstance(state, Text):
            return TextReader(self, state, move)
        if isinstance(state, Look):
            return LookReader(state, move)
        return CollectReader(self, state, move, ignore_strings=self._again > at + AGAIN_LIMIT)

    def _follow_call(self, state: State, move: Move) -> None:
        """Track whether ``state`` begins a call or continues one."""
        syntax = None if isinstance(state, Text) else state.syntax
        if syntax is None or self._syntax is None:
            self._opened += syntax is not None
            self._begun = ""
        else:
            is_kept = isinstance(state, Collect) and state.keep
            self._begun += self._reader.read_so_far() + ("" if is_kept else move.tag)
        self._syntax = syntax

    def _end_run(self) -> None:
        text = "".join(self._run)
        self._run.clear()
        if text and self._kind is not Kind.HIDDEN:
            self._parts.append(text if self._kind is Kind.CONTENT else Thought(text))


# ----------------------------------------------------------------- spans


class CollectReader:
    """Inside a :class:`.Collect`: gathers the span and finds its end, which may be inside a string
    with ``ignore_strings``.
    """

    def __init__(self, sink: Sink, state: Collect, move: Move, *, ignore_strings: bool) -> None:
        self._sink = sink
        self._state = state
        self._space = move.space
        self._before = move.space + state.source + move.lead + ("" if state.keep else move.tag)
        self._ends = anywhere(state.ends)
        self._brackets = _Brackets(state.quotes)
        follows = state.strings and not ignore_strings
        self._strings = Strings(state.strings, state.ends) if follows else None
        self._span: list[str] = []
        self._size = 0
        self._unread: list[str] = []  # the span without the members that were read
        self._read_size = 0  # of the span, up to the last member that was read
        self._read_members = 0
        if state.keep:
            self._advance(move.tag, 0, len(move.tag))
        self._followed_from = self._size

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        allowed = self._allowed(at)
        stop, end = self._find_end(text, at, allowed, last=last)
        if allowed is not None and allowed <= self._reach(text, at, stop, allowed):
            self._store(text[at:allowed])
            return allowed, self._fail("")
        closed = self._advance(text, at, stop)
        if closed is not None:
            return closed, self._end(self._state.parse, "")
        if self._strings and (self._strings.broken or (last and self._strings.are_open)):
            return self._give_up_strings(text, stop, last=last)
        if end:
            return stop + len(end), self._end(self._state.parse, end)
        if last:
            return len(text), self._end(self._state.parse_cut, text[stop:])
        return stop, None

    def read_so_far(self) -> str:
        return "".join(self._span)

    def _allowed(self, at: int) -> int | None:
        """The place at which the span is too long; None: it has no limit any more."""
        if self._state.limit is None or self._brackets.opened:
            return None
        return at + self._state.limit + 1 - self._size

    def _reach(self, text: str, at: int, stop: int, allowed: int) -> int:
        """How far the span extends without a bracket, or its end."""
        return self._brackets.first(text, at, min(stop, allowed)) if self._state.quotes else stop

    def _find_end(self, text: str, at: int, allowed: int | None, *, last: bool) -> tuple[int, str]:
        """How far the span extends in ``text``, and the delimiter that ends it there ("": none)."""
        if self._strings:
            certain = (self._ends.unfinished if last else self._strings.certain)(text, at)
            return self._strings.follow(text, at, certain)
        found = self._ends.search(text, at, None if self._state.quotes else allowed)
        return (found.start(), found.group()) if found else (self._ends.certain(text, at), "")

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
        """Emit the member of the list that the stored text may have completed."""
        if depth != 1 or self._state.item is None or not self._brackets.in_list:
            return
        call = self._state.item("".join(self._unread).lstrip("[, \t\r\n"))
        if call is None:  # from here on the whole has to parse
            self._brackets.in_list = False
            return
        self._sink.emit_call(call)
        self._read_members += 1
        self._read_size = self._size
        self._unread.clear()

    def _end(self, parse: Callable[[str], Outcome | None], end: str) -> Move:
        """The move from the span, which ``end`` ends; the members emitted before are the first."""
        outcome = parse("".join(self._span))
        if outcome is None:
            return self._step_back(end) if self._ends_inside() else self._fail(end)
        for piece in outcome.pieces[self._read_members :]:
            if isinstance(piece, str):
                self._sink.emit_text(Kind.CONTENT, piece)
            else:
                self._sink.emit_call(piece)
        # what follows a header may still turn out to be text
        goes_on = isinstance(outcome.then, Collect) and not outcome.pieces
        return Move(outcome.then, end, self._space if goes_on else "")

    def _ends_inside(self) -> list[tuple[int, str]]:
        """The ends in strings of the part that was not parsed yet."""
        ends = self._strings.inside if self._strings else []
        return [end for end in ends if self._followed_from + end[0] >= self._read_size]

    def _give_up_strings(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        if self._ends_inside():
            return at, self._step_back("")
        self._strings = None
        return self.read(text, at, last=last)

    def _step_back(self, end: str) -> Move:
        """The strings are broken, so the first end counts, wherever it was."""
        at, tag = self._ends_inside()[0]
        self._strings = None
        place = self._followed_from + at
        span = "".join(self._span)
        self._span = [span[:place]]
        self._unread = [span[self._read_size : place]]
        again = span[place + len(tag) :] + end
        return self._end(self._state.parse, tag)._replace(again=again)

    def _fail(self, end: str) -> Move:
        unread = "".join(self._unread)
        if not self._read_members:
            return Move(self._state.failed, text=self._before + unread + end)
        return Move(self._state.failed, text=unread.strip("], \t\r\n"))


_OPENING = re.compile(r"[(\[{]")
_IN_STRING = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'"}


class _Brackets:
    """Tracks the brackets of a value, wherever its text is cut."""

    def __init__(self, quotes: str) -> None:
        self._outside = re.compile(f"[{re.escape('([{)]}' + quotes)}]")
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self.opened = False
        self.in_list = False

    def first(self, text: str, at: int, stop: int) -> int:
        """The place of the first opening bracket, else ``stop``."""
        found = _OPENING.search(text, at, stop)
        return found.start() if found else stop

    def follow(self, text: str, at: int, stop: int) -> Iterator[tuple[int, int]]:
        """The place after each closing bracket, and the number that are open there."""
        if self._escaped and at < stop:
            at += 1
            self._escaped = False
        while found := _IN_STRING.get(self._quote, self._outside).search(text, at, stop):
            at = found.end()
            sign = found.group()
            if sign == "\\":
                self._escaped = at == stop
                at += not self._escaped
            elif self._quote:
                self._quote = ""
            elif sign in "([{":
                if not self.opened:
                    self.opened, self.in_list = True, sign == "["
                self._depth += 1
            elif sign not in ")]}":
                self._quote = sign if self.opened else ""
            elif self._depth:
                self._depth -= 1
                yield at, self._depth
