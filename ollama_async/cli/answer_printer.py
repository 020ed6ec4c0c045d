"""Prints an answer as it is generated, with word wrap and marked thinking, and its statistics."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.cells import get_character_cell_size

from ollama_async.cli.client import CommandFailed
from ollama_async.cli.formatting import format_statistics
from ollama_async.cli.terminal import unescaped
from ollama_async.core.safe_text import escape_text

MARGIN = 5
_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"


class AnswerPrinter:
    """Prints one answer to ``stream``, and collects its text."""

    def __init__(self, *, wrap: bool, hide_thinking: bool, stream: TextIO | None = None) -> None:
        self._stream = unescaped(stream or sys.stdout)
        self._is_terminal = self._stream.isatty()
        columns = shutil.get_terminal_size().columns
        self._wrapper = WordWrapper(columns) if wrap and self._is_terminal else None
        self._hide_thinking = hide_thinking
        self._is_thinking = False
        self.content = ""
        self.thinking = ""

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> AnswerPrinter:
        """A printer to standard output with the flags of ``run``."""
        return cls(wrap=not flags.nowordwrap, hide_thinking=flags.hidethinking)

    def add(self, content: str, thinking: str) -> None:
        """Print the next part of the answer."""
        if thinking:
            self.thinking += thinking
            if not self._hide_thinking:
                if not self._is_thinking:
                    self._write(f"{_GREY if self._is_terminal else ''}Thinking...\n")
                self._write(self._shown(thinking))
            self._is_thinking = True
        if content:
            self.end_thinking()
            self.content += content
            self._write(self._shown(content))

    def end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            if not self._hide_thinking:
                self._write(self._shown("\n...done thinking.\n\n"))
                self._write(_PLAIN if self._is_terminal else "")

    def _shown(self, text: str) -> str:
        """``text`` escaped and wrapped for a terminal; elsewhere unchanged."""
        if self._is_terminal:
            text = escape_text(text)
        return self._wrapper.feed(text) if self._wrapper else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def print_answer(objects: Iterable[dict[str, Any]], printer: AnswerPrinter) -> dict[str, Any]:
    """Print a response of ``/api/generate`` or ``/api/chat``; returns the last object.

    :raises CommandFailed: the response was cut off.
    """
    last: dict[str, Any] = {}
    try:
        for each in objects:
            message = each.get("message")
            if isinstance(message, dict):
                printer.add(message.get("content") or "", message.get("thinking") or "")
            else:
                printer.add(each.get("response") or "", each.get("thinking") or "")
            last = each  # read to the end: closing earlier would cancel the request
    finally:
        printer.end_thinking()
    if not last.get("done"):
        raise CommandFailed("the response was cut off")
    return last


def print_statistics(last: dict[str, Any]) -> None:
    sys.stdout.flush()
    print(format_statistics(last), end="", file=sys.stderr)


class WordWrapper:
    """Wraps streamed text for a terminal of ``columns`` columns.

    Prints a word as it grows. At the margin, erases it and prints it again on the next line.
    """

    def __init__(self, columns: int) -> None:
        self._limit = max(columns - MARGIN, 1)
        self._column = 0
        self._word = ""
        self._word_columns = 0

    def feed(self, text: str) -> str:
        """``text`` with line breaks and erasures."""
        return "".join(map(self._place, text))

    def _place(self, character: str) -> str:
        if character in "\n\r":
            self._column = 0
            self._end_word()
            return character
        columns = 1 if character == "\t" else get_character_cell_size(character)
        shown = character
        if self._column + columns > self._limit:
            if character in " \t":  # replaced by the line break
                self._column = 0
                self._end_word()
                return "\n"
            shown = self._break_line(columns) + character
        self._column += columns
        if character in " \t":
            self._end_word()
        elif columns or self._word:  # not a combining character after a blank
            self._word += character
            self._word_columns += columns
        return shown

    def _break_line(self, columns: int) -> str:
        """Move the unfinished word to a new line, with ``columns`` more; break too long words."""
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
