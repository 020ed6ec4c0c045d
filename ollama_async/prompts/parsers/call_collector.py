"""Collects a whole span (a call or a header) while it arrives, and finds its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.parsers.delimiter_search import End, Strings, anywhere
from ollama_async.prompts.parsers.states import Collect, Kind, Outcome, State


class Move(NamedTuple):
    """The transition into a state: the mark, the white space before it, the state's first text.

    ``lead`` is white space between the mark and the state. ``again`` is text that was read before
    and that the state reads once more before what follows.
    """

    to: State | str
    mark: str = ""
    space: str = ""
    text: str = ""
    again: str = ""
    lead: str = ""


class Sink(Protocol):
    """Takes what is certain."""

    def emit_text(self, kind: Kind, text: str) -> None: ...

    def emit_call(self, call: ToolCall) -> None: ...


class CollectReader:
    """Reads a :class:`Collect`. ``plainly``: an end inside a string counts."""

    def __init__(self, sink: Sink, state: Collect, move: Move, *, plainly: bool) -> None:
        self._sink = sink
        self._state = state
        self._space = move.space
        self._before = move.space + state.source + move.lead + ("" if state.keep else move.mark)
        self._marks = anywhere(state.ends)
        self._brackets = Brackets(state.quotes)
        follows = state.strings and not plainly
        self._strings = Strings(state.strings, state.ends) if follows else None
        self._span: list[str] = []
        self._size = 0
        self._unread: list[str] = []  # the span without the members that were read
        self._read_size = 0  # of the span, up to the last member that was read
        self._read_members = 0
        if state.keep:
            self._advance(move.mark, 0, len(move.mark))
        self._followed_from = self._size

    def read(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        allowed = self._allowed(at)
        stop, end, place = self._find_end(text, at, allowed, last=last)
        if allowed is not None and allowed <= self._reach(text, at, stop, allowed):
            self._store(text[at:allowed])
            return allowed, self._fail("")
        closed = self._advance(text, at, stop)
        if closed is not None:
            return closed, self._settled(self._state.settle, "")
        if self._strings and (self._strings.broken or (last and self._strings.are_open)):
            return self._give_up_strings(text, stop, last=last)
        if end:
            return place, self._settled(self._state.settle, end)
        if last:
            return len(text), self._settled(self._state.cut, text[stop:])
        return stop, None

    def read_so_far(self) -> str:
        return "".join(self._span)

    def _find_end(
        self, text: str, at: int, allowed: int | None, *, last: bool
    ) -> tuple[int, str, int]:
        """How far the span extends in ``text``, the mark that ends it there ("": none), and the
        place after that mark.
        """
        if self._strings:
            certain = (self._marks.unfinished if last else self._strings.certain)(text, at)
            stop, end = self._strings.follow(text, at, certain)
            return stop, end, stop + len(end)
        found = self._marks.search(text, at, None if self._state.quotes else allowed)
        if found:
            return found.start(), found.group(), found.end()
        return self._marks.certain(text, at), "", 0

    def _allowed(self, at: int) -> int | None:
        """The place at which the span is too long; None: it has no limit any more."""
        if self._state.limit is None or self._brackets.opened:
            return None
        return at + self._state.limit + 1 - self._size

    def _reach(self, text: str, at: int, stop: int, allowed: int) -> int:
        """How far the span extends without a bracket, or its end."""
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
        """Emit the member of the list that the stored text may have completed."""
        if depth != 1 or self._state.item is None or not self._brackets.in_list:
            return
        call = self._state.item("".join(self._unread).lstrip("[, \t\r\n"))
        if call is None:  # from here on the whole has to make sense
            self._brackets.in_list = False
            return
        self._sink.emit_call(call)
        self._read_members += 1
        self._read_size = self._size
        self._unread.clear()

    def _settled(self, settle: Callable[[str], Outcome | None], end: str) -> Move:
        outcome = settle("".join(self._span))
        if outcome is None:
            return self._step_back(end) if self._ends_inside() else self._fail(end)
        for piece in self._new(outcome.pieces):
            if isinstance(piece, str):
                self._sink.emit_text(Kind.CONTENT, piece)
            else:
                self._sink.emit_call(piece)
        # what follows a header may still turn out to be text
        goes_on = isinstance(outcome.then, Collect) and not outcome.pieces
        return Move(outcome.then, end, self._space if goes_on else "")

    def _new(self, pieces: list[ToolCall | str]) -> list[ToolCall | str]:
        """Without the members that were emitted before; they are the first ones."""
        return pieces[self._read_members :]

    def _ends_inside(self) -> list[End]:
        """The ends in strings of the part that was not parsed yet."""
        ends = self._strings.inside if self._strings else []
        return [end for end in ends if self._followed_from + end.at >= self._read_size]

    def _give_up_strings(self, text: str, at: int, *, last: bool) -> tuple[int, Move | None]:
        if self._ends_inside():
            return at, self._step_back("")
        self._strings = None
        return self.read(text, at, last=last)

    def _step_back(self, end: str) -> Move:
        """The strings are broken, so the first end counts, wherever it was."""
        first = self._ends_inside()[0]
        self._strings = None
        place = self._followed_from + first.at
        span = "".join(self._span)
        self._span = [span[:place]]
        self._unread = [span[self._read_size : place]]
        again = span[place + len(first.mark) :] + end
        return self._settled(self._state.settle, first.mark)._replace(again=again)

    def _fail(self, end: str) -> Move:
        unread = "".join(self._unread)
        if not self._read_members:
            return Move(self._state.failed, text=self._before + unread + end)
        return Move(self._state.failed, text=unread.strip("], \t\r\n"))


# ----------------------------------------------------------------- brackets

_OPENING = re.compile(r"[(\[{]")
_IN_STRING = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'"}


class Brackets:
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
