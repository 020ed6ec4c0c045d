"""Formats one number or one string as Go's ``fmt`` does, with width, precision and flags.

:mod:`.printf` parses format strings and walks composite values.
"""

from __future__ import annotations

import msgspec

from ollama_async.gocompat.strconv import (
    LAST_CODE,
    can_backquote,
    format_float,
    quote,
    to_bytes,
)
from ollama_async.gocompat.values import Byte, Value

_INTEGER_TYPES = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
"""Of verbs, for Python's ``format``."""
_FLOAT_PRECISION = {"f": 6, "F": 6, "e": 6, "E": 6}
_WORD = 1 << 64


class Formatter(msgspec.Struct):
    """Flags, width and precision of one verb. ``names`` is ``%+v``, ``go_syntax`` is ``%#v``.

    Methods that get the verb return None where it does not fit.
    """

    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    names: bool = False
    go_syntax: bool = False
    width: int | None = None
    precision: int | None = None

    def padded(self, text: str, *, zeros: bool = True) -> str:
        missing = (self.width or 0) - len(text)
        if missing <= 0:
            return text
        if self.minus:
            return text + " " * missing
        return ("0" if self.zero and zeros else " ") * missing + text

    def text(self, text: str) -> str:
        return self.padded(text if self.precision is None else text[: self.precision])

    def scalar(self, value: Value, verb: str) -> str | None:
        if isinstance(value, str):
            return self.string(value, verb)
        if isinstance(value, bool):
            return self.padded("true" if value else "false") if verb in "tv" else None
        if isinstance(value, int):
            return self.integer(int(value), verb, signed=not isinstance(value, Byte))
        return self._complex(value, verb) if isinstance(value, complex) else self._real(value, verb)

    def string(self, text: str, verb: str) -> str | None:
        if verb == "s" or (verb == "v" and not self.go_syntax):
            return self.text(text)
        if verb in "vq":
            return self._quoted(text)
        return self._hexadecimal(to_bytes(text), verb) if verb in "xX" else None

    def integer(self, value: int, verb: str, *, signed: bool) -> str | None:
        if verb in "cqU":
            return self._character(value % _WORD, verb)
        if verb not in _INTEGER_TYPES:
            return None
        if verb == "v" and self.go_syntax and not signed:
            return self._in_base(value, "x", sharp=True)
        return self._in_base(value, verb, sharp=self.sharp)

    def address(self, value: int) -> str:
        return self._in_base(value, "x", sharp=not self.sharp)

    def _quoted(self, text: str) -> str:
        if self.precision is not None:
            text = text[: self.precision]
        if self.sharp and can_backquote(text):
            return self.padded(f"`{text}`")
        return self.padded(quote(text, ascii_only=self.plus))

    def _hexadecimal(self, data: bytes, verb: str) -> str:
        if self.precision is not None:
            data = data[: self.precision]
        prefix = ("0" + verb) if self.sharp else ""
        digits = data.hex(" ") if self.space and data else data.hex()
        if verb == "X":
            digits = digits.upper()
        if self.space:
            digits = digits.replace(" ", " " + prefix)
        return self.padded(prefix + digits if data else "")

    def _in_base(self, value: int, verb: str, *, sharp: bool) -> str:
        if self.precision == 0 and value == 0:
            return " " * (self.width or 0)
        digits = format(abs(value), _INTEGER_TYPES[verb])
        sign = "-" if value < 0 else "+" if self.plus else " " if self.space else ""
        least = self.precision or 0
        if self.precision is None and self.zero and not self.minus:
            least = (self.width or 0) - len(sign)
        digits = digits.rjust(least, "0")
        if sharp:
            if verb in "xXb":
                digits = f"0{verb}{digits}"
            elif verb in "oO" and digits[0] != "0":
                digits = "0" + digits
        if verb == "O":
            digits = "0o" + digits
        return self.padded(sign + digits, zeros=False)

    def _character(self, code: int, verb: str) -> str:
        if verb == "U":
            text = "U+" + format(code, "X").rjust(max(self.precision or 0, 4), "0")
            if self.sharp and code <= LAST_CODE and chr(code).isprintable():
                text += f" '{chr(code)}'"
            return self.padded(text, zeros=False)
        valid = code <= LAST_CODE and not 0xD800 <= code <= 0xDFFF
        character = chr(code) if valid else "\ufffd"
        if verb == "q":
            character = quote(character, "'", ascii_only=self.plus)
        return self.padded(character)

    def _real(self, value: float, verb: str) -> str | None:
        if verb == "v":
            return self._decimal(value, "g", -1)
        if verb not in "bgGxXfFeE":
            return None
        return self._decimal(value, "f" if verb == "F" else verb, _FLOAT_PRECISION.get(verb, -1))

    def _complex(self, value: complex, verb: str) -> str | None:
        real = self._real(value.real, verb)
        plus, self.plus = self.plus, True
        imaginary = self._real(value.imag, verb)
        self.plus = plus
        return None if real is None else f"({real}{imaginary}i)"

    def _decimal(self, value: float, verb: str, precision: int) -> str:
        if self.precision is not None:
            precision = self.precision
        text = format_float(value, verb, precision)
        if text[0] not in "+-":
            text = "+" + text
        if self.space and text[0] == "+" and not self.plus:
            text = " " + text[1:]
        if text[1] in "IN":
            hidden = text[1] == "N" and not self.plus and not self.space
            return self.padded(text[1:] if hidden else text, zeros=False)
        if self.sharp and verb != "b":
            text = _with_point(text, verb, precision)
        if self.plus or text[0] != "+":
            missing = (self.width or 0) - len(text)
            if self.zero and not self.minus and missing > 0:
                return text[0] + "0" * missing + text[1:]
            return self.padded(text)
        return self.padded(text[1:])


def _with_point(text: str, verb: str, precision: int) -> str:
    """``%#g`` keeps the point and the zeros after it, ``%#f`` and ``%#e`` at least the point."""
    marks = "pP" if verb in "xX" else "eE"
    split = next((i for i, c in enumerate(text) if c in marks), len(text))
    number, tail = text[:split], text[split:]
    wanted = (6 if precision < 0 else precision) if verb in "gGx" else 0
    wanted -= len(number[1:].replace(".", "").lstrip("0"))
    if "." not in number:
        wanted -= number[1:] == "0"
        number += "."
    return number + "0" * wanted + tail
