"""Go's quoted strings, both ways (``strconv.Quote`` and ``strconv.Unquote``)."""

from __future__ import annotations

import re

from ollama_async.gocompat.bytestrings import from_bytes

_NAMED = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_MEANT = {letter: character for character, letter in _NAMED.items()} | {"\\": "\\"}
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})"
    r"|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_LAST_CODE = 0x10FFFF
_LAST_BYTE = 255


def quote(text: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """``text`` between ``mark``s, as Go source."""
    plain = text.isascii() and text.isprintable() and mark not in text and "\\" not in text
    if plain:
        return mark + text + mark
    return mark + text.translate(_Escapes(mark, ascii_only=ascii_only)) + mark


class _Escapes(dict[int, str]):
    """Of the characters met so far: long texts have few different ones."""

    def __init__(self, mark: str, *, ascii_only: bool) -> None:
        super().__init__()
        self._mark = mark
        self._ascii_only = ascii_only

    def __missing__(self, code: int) -> str:
        shown = _quoted(chr(code), self._mark, ascii_only=self._ascii_only)
        self[code] = shown
        return shown


def _quoted(character: str, mark: str, *, ascii_only: bool) -> str:
    if character in (mark, "\\"):
        return "\\" + character
    if character.isprintable() and (character.isascii() or not ascii_only):
        return character
    if character in _NAMED:
        return "\\" + _NAMED[character]
    return _numbered(ord(character))


def _numbered(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no character
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return "\\ufffd"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_backquote(text: str) -> bool:
    """Whether ``text`` can stand between back quotes on one line."""
    return all(
        (c >= " " or c == "\t") and c not in "`\x7f\ufeff" and not 0xD800 <= ord(c) <= 0xDFFF
        for c in text
    )


def unquote(literal: str) -> str:
    """The value of a string literal with its quotes.

    :raises ValueError: ``invalid syntax``.
    """
    mark, body = literal[0], literal[1:-1]
    if mark == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    pieces: list[bytes] = []
    at = 0
    while (escape := body.find("\\", at)) >= 0:
        pieces.append(body[at:escape].encode("utf-8", "surrogatepass"))
        code, at, is_byte = unescape(body, escape, mark)
        pieces.append(bytes([code]) if is_byte else chr(code).encode())
    pieces.append(body[at:].encode("utf-8", "surrogatepass"))
    return from_bytes(b"".join(pieces))


def unescape(text: str, at: int, mark: str) -> tuple[int, int, bool]:
    """What the backslash at ``at`` begins: its code, where it ends, whether the code is a byte.

    :raises ValueError: ``invalid syntax``.
    """
    match = _ESCAPE.match(text, at)
    if match is None:
        raise ValueError("invalid syntax")
    letter, pair, octal, short, long = match.groups()
    if letter is not None:
        if letter in "'\"" and letter != mark:
            raise ValueError("invalid syntax")
        return ord(_MEANT.get(letter, letter)), match.end(), False
    if pair is not None or octal is not None:
        byte = int(pair, 16) if pair is not None else int(octal, 8)
        if byte > _LAST_BYTE:
            raise ValueError("invalid syntax")
        return byte, match.end(), True
    code = int(short or long, 16)
    if code > _LAST_CODE or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid syntax")
    return code, match.end(), False
