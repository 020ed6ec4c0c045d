"""Values as models write them in languages that are almost Python or almost JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ollama_async.prompts.parsers.tools import DEPTH, NUMBER, number

_WORDS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nil": None,
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SPACE = re.compile(r"\s*")
_BARE_END = re.compile(r"[,\]})]")
_NEXT_KEY = re.compile(r"[,}\]]\s*(?:[\"']?[\w.$-]+[\"']?\s*[:=]|[,}\])]|$)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Unreadable(ValueError):
    """The text is no such value."""


def unescaped(text: str) -> str:
    """The usual escapes; any other character after a backslash stands for itself, with it."""
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1]) or _other(match[1]), text)


def as_it_is(text: str) -> str:
    """A string without escapes."""
    return text


def _other(character: str) -> str:
    return character if character in "\\\"'" else "\\" + character


class Values:
    """Reads values one after the other from a text.

    ``quotes`` are the marks around strings, and what becomes of the text between them.
    ``keyed``: bare text may hold commas, unless a key follows them. Where the text ends inside a
    string, list or object, ``lenient`` takes it as closed there.
    """

    def __init__(
        self,
        text: str,
        quotes: Mapping[str, Callable[[str], str]],
        *,
        keyed: bool = False,
        lenient: bool = False,
    ) -> None:
        self.text = text
        self.at = 0
        self._quotes = quotes
        self._keyed = keyed
        self._lenient = lenient

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, token: str) -> bool:
        """Step over white space and ``token``, if that is what comes."""
        self.skip_space()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def until(self, token: str) -> str:
        """The text up to ``token``, and step over both."""
        end = self.text.find(token, self.at)
        if end < 0:
            raise Unreadable(token)
        found = self.text[self.at : end]
        self.at = end + len(token)
        return found.strip()

    def value(self, depth: int = 0, *, listed: bool = False) -> Any:
        """:raises Unreadable: no value begins here, or it does not end."""
        if depth > DEPTH:
            raise Unreadable("too deep")
        self.skip_space()
        for quote, meaning in self._quotes.items():
            if self.text.startswith(quote, self.at):
                return meaning(self._string(quote))
        if self.take("["):
            return self._list(depth)
        if self.take("{"):
            return self.members("}", ":", depth)
        return self._bare(_BARE_END if listed or not self._keyed else _NEXT_KEY)

    def members(self, close: str, between: str, depth: int = 0) -> dict[str, Any]:
        """Keys and values up to ``close``, which is stepped over."""
        found: dict[str, Any] = {}
        while not self._closed(close):
            key = self._key(between)
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

    def _key(self, between: str) -> str:
        key = self.until(between)
        for quote in self._quotes:
            if len(key) >= 2 * len(quote) and key.startswith(quote) and key.endswith(quote):
                return key[len(quote) : -len(quote)]
        if not key or any(character in key for character in "{}[](),"):
            raise Unreadable(key)
        return key

    def _string(self, quote: str) -> str:
        self.at += len(quote)
        start = at = self.at
        while (end := self.text.find(quote, at)) >= 0:
            if len(quote) > 1 or not self._is_escaped(start, end):
                self.at = end + len(quote)
                return self.text[start:end]
            at = end + 1
        if not self._lenient:
            raise Unreadable(quote)
        self.at = len(self.text)
        return self.text[start:].rstrip().rstrip("}]")

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
        return word(self.text[start : self.at].strip())


def word(text: str) -> Any:
    """What a text without quotes is."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float_of(text) if NUMBER.fullmatch(text) else text


def float_of(text: str) -> float | str:
    """A number with a fraction; the text itself, if no number type holds it."""
    found = number(text)
    return found if isinstance(found, str) else float(found)
