"""An answer on its way to the terminal: wrapped, thinking set apart, statistics behind it."""

from __future__ import annotations

import argparse
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

from ollama_async.cli import formatting
from ollama_async.cli.client import CommandFailed
from ollama_async.cli.terminal import direct
from ollama_async.core.safe_text import escape_text

_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"


class Printer:
    """Writes one answer as it arrives, and keeps its text."""

    def __init__(self, *, wrap: bool, hide_thinking: bool, stream: TextIO | None = None) -> None:
        self._stream = direct(stream or sys.stdout)
        self._is_terminal = self._stream.isatty()
        columns = shutil.get_terminal_size().columns
        self._wrapper = Wrapper(columns) if wrap and self._is_terminal else None
        self._hide_thinking = hide_thinking
        self._is_thinking = False
        self.content = ""
        self.thinking = ""

    @classmethod
    def for_flags(cls, arguments: argparse.Namespace) -> Printer:
        """One for standard output, as the flags of ``run`` say."""
        return cls(wrap=not arguments.nowordwrap, hide_thinking=arguments.hidethinking)

    def take(self, content: str, thinking: str) -> None:
        """The next part of the answer."""
        if thinking:
            self.thinking += thinking
            if not self._hide_thinking:
                if not self._is_thinking:
                    self._write(f"{_GREY if self._is_terminal else ''}Thinking...\n")
                self._write(self._wrapped(thinking))
            self._is_thinking = True
        if content:
            self.end_thinking()
            self.content += content
            self._write(self._wrapped(content))

    def end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            if not self._hide_thinking:
                self._write(self._wrapped("\n...done thinking.\n\n"))
                self._write(_PLAIN if self._is_terminal else "")

    def _wrapped(self, text: str) -> str:
        """``text`` as it is shown; elsewhere than on a terminal, as the model wrote it."""
        if self._is_terminal:
            text = escape_text(text)
        return self._wrapper.feed(text) if self._wrapper else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def show(objects: Iterable[dict[str, Any]], printer: Printer) -> dict[str, Any]:
    """Print the objects of ``/api/generate`` or ``/api/chat``; the last one, which is ``done``.

    :raises CommandFailed: the answer broke off.
    """
    last: dict[str, Any] = {}
    try:
        for each in objects:
            message = each.get("message")
            if isinstance(message, dict):
                printer.take(message.get("content") or "", message.get("thinking") or "")
            else:
                printer.take(each.get("response") or "", each.get("thinking") or "")
            last = each  # read on to the very end: hanging up earlier looks like a cancel
    finally:
        printer.end_thinking()
    if not last.get("done"):
        raise CommandFailed("the answer broke off")
    return last


def print_statistics(last: dict[str, Any]) -> None:
    sys.stdout.flush()
    print(formatting.statistics(last), end="", file=sys.stderr)


MARGIN = 5


class Wrapper:
    """Turns pieces of an answer into what to write to a terminal ``columns`` wide."""

    def __init__(self, columns: int) -> None:
        self._limit = max(columns - MARGIN, 1)
        self._column = 0
        self._word = ""
        self._word_columns = 0

    def feed(self, text: str) -> str:
        """What to write for ``text``: the text itself, line breaks and erasures added."""
        return "".join(map(self._place, text))

    def _place(self, character: str) -> str:
        if character in "\n\r":
            self._column = 0
            self._end_word()
            return character
        columns = width(character)
        shown = character
        if self._column + columns > self._limit:
            if character in " \t":  # the blank becomes the line break
                self._column = 0
                self._end_word()
                return "\n"
            shown = self._next_line(columns) + character
        self._column += columns
        if character in " \t":
            self._end_word()
        elif columns or self._word:  # an accent on a blank stays there
            self._word += character
            self._word_columns += columns
        return shown

    def _next_line(self, columns: int) -> str:
        """Move the word begun, with room for ``columns`` more, to a new line; break a word that
        would not fit there either.
        """
        if self._word_columns + columns > self._limit:
            self._column = 0
            self._end_word()
            return "\n"
        back = f"\x1b[{self._word_columns}D" if self._word else ""
        self._column = self._word_columns
        return f"{back}\x1b[K\n{self._word}"

    def _end_word(self) -> None:
        self._word = ""
        self._word_columns = 0


def width(character: str) -> int:
    """Columns of a terminal that ``character`` takes: 0, 1 or 2."""
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
