"""Word wrap for text that arrives piece by piece.

A word is shown as it grows; when it crosses the edge it is taken back from the line's end and
begun again on the next line.
"""

from __future__ import annotations

import unicodedata

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
