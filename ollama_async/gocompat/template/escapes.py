"""Text made fit for HTML, JavaScript and URLs, as Go's templates do it."""

from __future__ import annotations

import urllib.parse

from ollama_async.gocompat.budget import Budget
from ollama_async.gocompat.bytestrings import to_bytes

_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_QUOTED = "\\'\""
_CODED = "<>&="


def in_html(text: str, budget: Budget) -> str:
    budget.characters(len(text))
    return text.translate(_HTML)


def in_script(text: str, budget: Budget) -> str:
    """For between quotes in JavaScript."""
    budget.characters(len(text))
    return text.translate(_Script())


class _Script(dict[int, str]):
    """Of the characters met so far: long texts have few different ones."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = _in_script(chr(code))
        return shown


def _in_script(character: str) -> str:
    if character in _QUOTED:
        return "\\" + character
    if "\ud800" <= character <= "\udfff":  # a byte that is no character
        return character
    coded = character < " " or character in _CODED
    if coded or not (character.isascii() or character.isprintable()):
        return f"\\u{ord(character):04X}"
    return character


def in_query(text: str, budget: Budget) -> str:
    """For a value in a URL's query."""
    budget.characters(len(text))
    return urllib.parse.quote_from_bytes(to_bytes(text), safe=" ~").replace(" ", "+")
