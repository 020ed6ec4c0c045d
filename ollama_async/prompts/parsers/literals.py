"""Reads values that models write in almost Python or almost JSON."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ollama_async.core.json_depth import TOOL_DEPTH

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_INT64 = 2**63

_CONSTANTS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nil": None,
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_SPACE = re.compile(r"\s*")
_BARE_END = re.compile(r"[,\]})]")
_NEXT_KEY = re.compile(r"[,}\]]\s*(?:[\"']?[\w.$-]+[\"']?\s*[:=]|[,}\])]|$)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CODE = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL | re.IGNORECASE
)
_SURROGATES = range(0xD800, 0xE000)
_AFTER_STRING = re.compile(r"\s*+(?:[,)\]}:]|[\w.$-]++\s*+=|$)")
"""What follows the closing quote of a text without escapes."""


Quotes = Mapping[str, Callable[[str], str]]
_OUTER = 1
"""The depth of the arguments themselves."""


class Unreadable(ValueError):
    """The text is not such a value."""


def unescaped(text: str) -> str:
    """Resolves the usual escapes. Before other characters a backslash is kept."""
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1]) or _other(match[1]), text)


def as_it_is(text: str) -> str:
    """A string without escapes, unchanged."""
    return text


def as_python(text: str) -> str:
    """As :func:`unescaped`, plus the character codes that Python prints."""
    return _CODE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        return _ESCAPES.get(found[4]) or _other(found[4])
    code = int(digits, 16)
    return found[0] if code in _SURROGATES or code > sys.maxunicode else chr(code)


PYTHON_QUOTES: Quotes = {'"': as_python, "'": as_python}


def literal(text: str) -> Any:
    """The value of a list or dict as Python prints it; None: the text is not one."""
    values = Values(text.strip(), PYTHON_QUOTES, bare=False)
    try:
        found = values.value()
    except Unreadable:
        return None
    return found if values.at == len(values.text) else None


def _other(character: str) -> str:
    return character if character in "\\\"'" else "\\" + character


class Values:
    """Reads one value after the other from a text.

    ``quotes`` are the tags around strings, and what becomes of the text between them; ``inner``
    are those within lists and objects, where they are others. ``keyed``: bare text may hold commas,
    unless a key follows them. Where the text ends inside a string, list or object, ``lenient``
    takes it as closed there. ``bare``: text without quotes is a value, not only numbers and
    names like ``true``.
    """

    def __init__(
        self,
        text: str,
        quotes: Quotes,
        *,
        inner: Quotes | None = None,
        keyed: bool = False,
        lenient: bool = False,
        bare: bool = True,
    ) -> None:
        self.text = text
        self.at = 0
        self._quotes = quotes
        self._inner = inner or quotes
        self._keyed = keyed
        self._lenient = lenient
        self._bare_text = bare
        self._ambiguous: set[str] = set()  # quotes that are nowhere certain to be an end

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, token: str) -> bool:
        """Skip white space and ``token`` if that is next; returns whether it was."""
        self.skip_space()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def until(self, token: str) -> str:
        """The text up to ``token``; both are skipped."""
        end = self.text.find(token, self.at)
        if end < 0:
            raise Unreadable(token)
        found = self.text[self.at : end]
        self.at = end + len(token)
        return found.strip()

    def value(self, depth: int = 0, *, listed: bool = False) -> Any:
        """:raises Unreadable: no value begins here, or it does not end."""
        if depth > TOOL_DEPTH:
            raise Unreadable("too deep")
        self.skip_space()
        quoted = self._quoted(depth)
        if quoted is not None:
            return quoted
        if self.take("["):
            return self._list(depth)
        if self.take("{"):
            return self.members("}", ":", depth)
        return self._bare(_BARE_END if listed or not self._keyed else _NEXT_KEY)

    def members(self, close: str, between: str, depth: int = 0) -> dict[str, Any]:
        """Keys and values up to ``close``, which is skipped."""
        found: dict[str, Any] = {}
        while not self._closed(close):
            key = self._key(between, depth + 1)
            found[key] = self.value(depth + 1)
            self.take(",")
        return found

    def _list(self, depth: int) -> list[Any]:
        found = []
        while not self._closed("]"):
            found.append(self.value(depth + 1, listed=True))
            self.take(",")
        return found

    def _closed(self, close: str) -> bool:
        if self.take(close):
            return True
        if self.at < len(self.text):
            return False
        if self._lenient:
            return True
        raise Unreadable(close)

    def _key(self, between: str, depth: int) -> str:
        self.skip_space()
        key = self._quoted(depth)
        if key is None:
            key = self.until(between)
            if not key or any(character in key for character in "{}[](),"):
                raise Unreadable(key)
        elif not self.take(between):
            raise Unreadable(between)
        return key

    def _quoted(self, depth: int) -> str | None:
        """The string that begins here; None: there is none."""
        for quote, meaning in (self._quotes if depth <= _OUTER else self._inner).items():
            if self.text.startswith(quote, self.at):
                return meaning(self._string(quote, raw=meaning is as_it_is))
        return None

    def _string(self, quote: str, *, raw: bool) -> str:
        """The text up to the closing ``quote``. In ``raw`` text other quotes may come before it."""
        self.at += len(quote)
        start = self.at
        end = self._certain_end(start, quote) if raw and len(quote) == 1 else -1
        if end < 0:
            end = self._first_end(start, quote)
        if end >= 0:
            self.at = end + len(quote)
            return self.text[start:end]
        if not self._lenient:
            raise Unreadable(quote)
        self.at = len(self.text)
        return self.text[start:].rstrip().rstrip("}]")

    def _first_end(self, start: int, quote: str) -> int:
        at = start
        while (end := self.text.find(quote, at)) >= 0:
            if len(quote) > 1 or not self._is_escaped(start, end):
                return end
            at = end + 1
        return -1

    def _certain_end(self, start: int, quote: str) -> int:
        """The first closing quote before something that follows values."""
        at = start
        while quote not in self._ambiguous and (end := self.text.find(quote, at)) >= 0:
            if not self._is_escaped(start, end) and _AFTER_STRING.match(self.text, end + 1):
                return end
            at = end + 1
        self._ambiguous.add(quote)  # nor will there be one for the strings that follow
        return -1

    def _is_escaped(self, start: int, end: int) -> bool:
        first = end
        while first > start and self.text[first - 1] == "\\":
            first -= 1
        return (end - first) % 2 == 1

    def _bare(self, end: re.Pattern[str]) -> Any:
        start = self.at
        found = end.search(self.text, start)
        self.at = found.start() if found else len(self.text)
        if self.at == start:
            raise Unreadable("no value")
        value = bare_value(self.text[start : self.at].strip())
        if isinstance(value, str) and not self._bare_text:
            raise Unreadable(value)
        return value


def bare_value(text: str) -> Any:
    """The value of a text without quotes."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    whole = whole_number(text)
    if whole is not None:
        return whole
    found = number(text)
    return float(found) if isinstance(found, int) else text if found is None else found


def whole_number(text: str) -> int | None:
    """The number as an int of 64 bits; None: it is not one."""
    return int(text) if _WHOLE.fullmatch(text) and -_INT64 <= int(text) < _INT64 else None


def number(text: str) -> int | float | str | None:
    """The number, as an int if it is whole; the text itself if no number type holds it; None: it is
    no number.
    """
    if not _NUMBER.fullmatch(text):
        return None
    found = float(text)
    if math.isinf(found):
        return text
    return int(found) if found.is_integer() and abs(found) < _INT64 else found
