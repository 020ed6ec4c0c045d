"""Numbers as a template writes them, read the way Go reads untyped constants."""

from __future__ import annotations

import math
import re

from ollama_async.gocompat.strconv import quote, unescape

_INTEGER = re.compile(
    r"[+-]?(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)"
    r"|0((?:_?[0-7])+)|((?:0|[1-9](?:_?[0-9])*)))"
)
_BASES = (16, 2, 8, 8, 10)
_DECIMAL = re.compile(
    r"[+-]?(?:\d(?:_?\d)*\.?(?:\d(?:_?\d)*)?|\.\d(?:_?\d)*)(?:[eE][+-]?\d(?:_?\d)*)?"
)
_HEX = re.compile(
    r"[+-]?0[xX](?=_?[0-9a-fA-F.])(?:_?[0-9a-fA-F])*(?:\.(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?)?[pP][+-]?\d+"
)
_SPLIT = re.compile(r"(?<=[0-9a-fA-F.])(?<![eEpP])([+-].*)i$")
_LONGEST = 1000
"""Characters; Python reads longer decimals in time that grows with their square."""


def constant(text: str) -> int | float | complex:
    """The value of a number.

    :raises ValueError: it is none, in Go's words.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"illegal number syntax: {quote(text)}")
    if text.endswith("i"):
        imaginary = _float(text[:-1])
        if imaginary is not None:
            return complex(0, imaginary)
    integer = _integer(text)
    if integer is not None and -(1 << 63) <= integer < 1 << 64:
        return integer
    number = _float(text)
    if number is None:
        raise ValueError(f"illegal number syntax: {quote(text)}")
    if not any(c in ".eEpP" for c in text):
        raise ValueError(f"integer overflow: {quote(text)}")
    # written with an exponent it is a float, but Go counts 0x1e among the integers
    return int(number) if integer is not None else number


def complex_constant(text: str) -> complex:
    """The value of a number like ``1+2i``.

    :raises ValueError: it is none.
    """
    match = _SPLIT.search(text)
    if match is not None:
        real, imaginary = _float(text[: match.start()]), _float(match[1])
        if real is not None and imaginary is not None:
            return complex(real, imaginary)
    raise ValueError("syntax error scanning complex number")


def character_constant(text: str) -> int:
    """The code of the character between single quotes.

    :raises ValueError: it is not one, in Go's words.
    """
    body = text[1:]
    if body[0] == "\\":
        code, end, _ = unescape(body, 0, "'")
    elif body[0] == "'":
        raise ValueError("invalid syntax")
    else:
        code, end = ord(body[0]), 1
    if body[end:] != "'":
        raise ValueError(f"malformed character constant: {text}")
    return code


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    index = (match.lastindex or 1) - 1
    value = int(match[index + 1].replace("_", ""), _BASES[index])
    return -value if text[0] == "-" else value


def _float(text: str) -> float | None:
    if _DECIMAL.fullmatch(text):
        value = float(text)
    elif _HEX.fullmatch(text):
        try:
            value = float.fromhex(text.replace("_", ""))
        except (ValueError, OverflowError):
            return None
    else:
        return None
    return None if math.isinf(value) else value
