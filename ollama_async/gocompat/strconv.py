r"""Quotes and unquotes strings, parses and formats numbers, as Go's ``strconv`` does.

Go's strings are bytes, Python's are characters. A byte that is part of no character (from
``"\xff"``, or from slicing inside a character) is a lone surrogate here, as ``surrogateescape``
decodes it, until the text is finished.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_bytes(text: str) -> bytes:
    """``text`` as Go's string."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: broken before it came here
        return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(to_bytes(text))


def joined(text: str) -> str:
    """``text``, which was joined from pieces, with the halves of characters joined as well."""
    return from_bytes(to_bytes(text)) if _has_surrogates(text) else text


def finished(text: str) -> str:
    """``text`` for output: U+FFFD in place of what is no character."""
    return to_bytes(text).decode("utf-8", "replace") if _has_surrogates(text) else text


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


# quoted strings: Quote, CanBackquote, Unquote

_NAMED = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_MEANT = {letter: character for character, letter in _NAMED.items()} | {"\\": "\\"}
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})"
    r"|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_NOT_RAW = re.compile("[\x00-\x08\n-\x1f`\x7f\ufeff\ud800-\udfff]")
LAST_CODE = 0x10FFFF
_LAST_BYTE = 255


class EscapeTable(dict[int, str]):
    """A table for ``str.translate`` that caches escapes: texts have few different characters."""

    def __init__(self, escape: Callable[[str], str]) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, code: int) -> str:
        escaped = self[code] = self._escape(chr(code))
        return escaped


def quote(text: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """``text`` between ``mark``s, as Go source."""
    plain = text.isascii() and text.isprintable() and mark not in text and "\\" not in text
    if not plain:
        text = text.translate(EscapeTable(partial(_escaped, mark=mark, ascii_only=ascii_only)))
    return mark + text + mark


def _escaped(character: str, *, mark: str, ascii_only: bool) -> str:
    if character in (mark, "\\"):
        return "\\" + character
    if character.isprintable() and (character.isascii() or not ascii_only):
        return character
    return "\\" + _NAMED[character] if character in _NAMED else _code_escape(ord(character))


def _code_escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no character
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return "\\ufffd"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_backquote(text: str) -> bool:
    """Whether ``text`` can stand between back quotes on one line."""
    return _NOT_RAW.search(text) is None


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
        code, at, is_byte = _unescape(body, escape, mark)
        pieces.append(bytes([code]) if is_byte else chr(code).encode())
    pieces.append(body[at:].encode("utf-8", "surrogatepass"))
    return from_bytes(b"".join(pieces))


def unquote_character(literal: str) -> int:
    """The code of the character between single quotes.

    :raises ValueError: it is not one, with Go's text.
    """
    body = literal[1:]
    if body[0] == "\\":
        code, end, _ = _unescape(body, 0, "'")
    elif body[0] == "'":
        raise ValueError("invalid syntax")
    else:
        code, end = ord(body[0]), 1
    if body[end:] != "'":
        raise ValueError(f"malformed character constant: {literal}")
    return code


def _unescape(text: str, at: int, mark: str) -> tuple[int, int, bool]:
    """The escape at ``at``: its code, where it ends, and whether the code is a byte."""
    match = _ESCAPE.match(text, at)
    if match is None:
        raise ValueError("invalid syntax")
    letter, pair, octal, short, long = match.groups()
    if letter is not None:
        if letter in "'\"" and letter != mark:
            raise ValueError("invalid syntax")
        return ord(_MEANT.get(letter, letter)), match.end(), False
    is_byte = short is None and long is None
    code = int(octal, 8) if octal is not None else int(pair or short or long, 16)
    if code > (_LAST_BYTE if is_byte else LAST_CODE) or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid syntax")
    return code, match.end(), is_byte


# numbers of a template's source, which are untyped constants

_OCTAL = re.compile(r"([+-]?)0_?(?=[0-7])")
_HEX = re.compile(
    r"[+-]?0[xX](?=_?[0-9a-fA-F.])(?:_?[0-9a-fA-F])*(?:\.(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?)?[pP][+-]?\d+"
)
_SPLIT = re.compile(r"(?<=[0-9a-fA-F.])(?<![eEpP])([+-].*)i$")
_LONGEST = 1000
"""Characters; Python reads longer decimals in time that grows with their square."""


def parse_number(text: str) -> int | float | complex:
    """The value of a number.

    :raises ValueError: it is none, with Go's text.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"illegal number syntax: {quote(text)}")
    if text.endswith("i"):
        imaginary = _parse_float(text[:-1])
        if imaginary is not None:
            return complex(0, imaginary)
    integer = _parse_integer(text)
    if integer is not None and -(1 << 63) <= integer < 1 << 64:
        return integer
    number = _parse_float(text)
    if number is None:
        raise ValueError(f"illegal number syntax: {quote(text)}")
    if not any(c in ".eEpP" for c in text):
        raise ValueError(f"integer overflow: {quote(text)}")
    # written with an exponent it is a float, but Go counts 0x1e among the integers
    return int(number) if integer is not None else number


def parse_complex(text: str) -> complex:
    """The value of a number like ``1+2i``.

    :raises ValueError: it is none.
    """
    match = _SPLIT.search(text)
    if match is not None:
        real, imaginary = _parse_float(text[: match.start()]), _parse_float(match[1])
        if real is not None and imaginary is not None:
            return complex(real, imaginary)
    raise ValueError("syntax error scanning complex number")


def _parse_integer(text: str) -> int | None:
    try:
        return int(_OCTAL.sub(r"\g<1>0o", text, count=1) if _OCTAL.match(text) else text, 0)
    except ValueError:
        return None


def _parse_float(text: str) -> float | None:
    try:
        value = float.fromhex(text.replace("_", "")) if _HEX.fullmatch(text) else float(text)
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(value) else value


# floating-point numbers as text: FormatFloat

_MANTISSA_BITS = 52
_HEX_DIGITS = _MANTISSA_BITS // 4
_LEAST_NORMAL = -1021  # exponent; smaller numbers have fewer bits
_LEAST_EXPONENT, _MOST_EXPONENT = -4, 5
"""Between them the shortest form of ``%g`` needs none."""


def format_float(value: float, verb: str, precision: int) -> str:
    """``precision`` -1: as many digits as make the number unique."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb == "b":
        return _binary(value)
    if verb in "xX":
        return _hexadecimal(value, verb, precision)
    return f"{value:.{precision}{verb}}" if precision >= 0 else _shortest(value, verb)


def _shortest(value: float, verb: str) -> str:
    number = Decimal(repr(value)).normalize()
    exponent = number.adjusted()
    if verb in "eE" or (verb in "gG" and not _LEAST_EXPONENT <= exponent <= _MOST_EXPONENT):
        letter = "e" if verb in "eg" else "E"
        return f"{number.scaleb(-exponent):f}{letter}{exponent:+03d}"
    return f"{number:f}"


def _binary(value: float) -> str:
    exponent = max(math.frexp(value)[1], _LEAST_NORMAL) if value else _LEAST_NORMAL
    mantissa = int(math.ldexp(abs(value), _MANTISSA_BITS + 1 - exponent))
    return f"{_sign(value)}{mantissa}p{exponent - _MANTISSA_BITS - 1:+d}"


def _hexadecimal(value: float, verb: str, precision: int) -> str:
    digits = precision if 0 <= precision < _HEX_DIGITS else _HEX_DIGITS
    scaled, exponent = math.frexp(abs(value))
    exponent -= value != 0
    mantissa = round(math.ldexp(scaled, 4 * digits + 1))  # 1.fraction, halves to even
    if mantissa >> (4 * digits + 1):
        mantissa, exponent = mantissa >> 1, exponent + 1
    lead, rest = divmod(mantissa, 1 << 4 * digits)
    fraction = f"{rest:0{digits}x}".rstrip("0").ljust(precision, "0")
    point = "." if fraction else ""
    text = f"{_sign(value)}0x{lead}{point}{fraction}p{exponent:+03d}"
    return text.upper() if verb == "X" else text


def _sign(value: float) -> str:
    return "-" if math.copysign(1, value) < 0 else ""
