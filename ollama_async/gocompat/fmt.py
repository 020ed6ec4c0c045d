"""How ``fmt`` writes one number or one string, with width, precision and flags."""

from __future__ import annotations

import msgspec

from ollama_async.gocompat.bytestrings import from_bytes, to_bytes
from ollama_async.gocompat.floats import formatted
from ollama_async.gocompat.strconv import can_backquote, quote

_LAST_CODE = 0x10FFFF
_BASES = {"d": 10, "v": 10, "b": 2, "o": 8, "O": 8, "x": 16, "X": 16}
_DIGITS = {10: "d", 2: "b", 8: "o", 16: "x"}
_FLOAT_PRECISION = {"f": 6, "F": 6, "e": 6, "E": 6}
_WORD = 1 << 64


class Flags(msgspec.Struct):
    """Of one verb. ``names`` is ``%+v``, ``go_syntax`` is ``%#v``."""

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


class Scalars:
    """Each method answers None where the verb does not fit."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags

    def text(self, text: str) -> str:
        precision = self._flags.precision
        return self._flags.padded(text if precision is None else text[:precision])

    def string(self, text: str, verb: str) -> str | None:
        if verb == "v" and not self._flags.go_syntax:
            return self.text(text)
        if verb in "vq":
            return self._quoted(text)
        if verb == "s":
            return self.text(text)
        return self._hexadecimal(to_bytes(text), verb) if verb in "xX" else None

    def octets(self, data: bytes, verb: str) -> str | None:
        return self.string(from_bytes(data), verb)

    def _quoted(self, text: str) -> str:
        flags = self._flags
        if flags.precision is not None:
            text = text[: flags.precision]
        if flags.sharp and can_backquote(text):
            return flags.padded(f"`{text}`")
        return flags.padded(quote(text, ascii_only=flags.plus))

    def _hexadecimal(self, data: bytes, verb: str) -> str:
        flags = self._flags
        if flags.precision is not None:
            data = data[: flags.precision]
        prefix = ("0" + verb) if flags.sharp else ""
        digits = data.hex(" ") if flags.space and data else data.hex()
        if verb == "X":
            digits = digits.upper()
        if flags.space:
            digits = digits.replace(" ", " " + prefix)
        return flags.padded(prefix + digits if data else "")

    def integer(self, value: int, verb: str, *, signed: bool) -> str | None:
        if verb in "cqU":
            return self._character(value % _WORD, verb)
        if verb not in _BASES:
            return None
        if verb == "v" and self._flags.go_syntax and not signed:
            return self._in_base(value, 16, "x", sharp=True)
        return self._in_base(value, _BASES[verb], verb, sharp=self._flags.sharp)

    def address(self, value: int) -> str:
        return self._in_base(value, 16, "x", sharp=not self._flags.sharp)

    def _in_base(self, value: int, base: int, verb: str, *, sharp: bool) -> str:
        flags = self._flags
        if flags.precision == 0 and value == 0:
            return " " * (flags.width or 0)
        digits = format(abs(value), _DIGITS[base])
        digits = digits.upper() if verb == "X" else digits
        sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
        digits = digits.rjust(self._least_digits(sign), "0")
        if sharp:
            digits = _prefix(digits, base, verb) + digits
        if verb == "O":
            digits = "0o" + digits
        return flags.padded(sign + digits, zeros=False)

    def _least_digits(self, sign: str) -> int:
        flags = self._flags
        if flags.precision is not None:
            return flags.precision
        if flags.zero and not flags.minus and flags.width is not None:
            return flags.width - len(sign)
        return 0

    def _character(self, code: int, verb: str) -> str:
        flags = self._flags
        if verb == "U":
            return self._code(code)
        valid = code <= _LAST_CODE and not 0xD800 <= code <= 0xDFFF
        character = chr(code) if valid else "\ufffd"
        if verb == "c":
            return flags.padded(character)
        return flags.padded(quote(character, "'", ascii_only=flags.plus))

    def _code(self, code: int) -> str:
        flags = self._flags
        text = "U+" + format(code, "X").rjust(max(flags.precision or 0, 4), "0")
        if flags.sharp and code <= _LAST_CODE and chr(code).isprintable():
            text += f" '{chr(code)}'"
        return flags.padded(text, zeros=False)

    def real(self, value: float, verb: str) -> str | None:
        if verb == "v":
            return self._decimal(value, "g", -1)
        if verb not in "bgGxXfFeE":
            return None
        return self._decimal(value, "f" if verb == "F" else verb, _FLOAT_PRECISION.get(verb, -1))

    def pair(self, value: complex, verb: str) -> str | None:
        first = self.real(value.real, verb)
        if first is None:
            return None
        plus, self._flags.plus = self._flags.plus, True
        imaginary = self.real(value.imag, verb)
        self._flags.plus = plus
        return f"({first}{imaginary}i)"

    def _decimal(self, value: float, verb: str, precision: int) -> str:
        flags = self._flags
        if flags.precision is not None:
            precision = flags.precision
        text = formatted(value, verb, precision)
        if text[0] not in "+-":
            text = "+" + text
        if flags.space and text[0] == "+" and not flags.plus:
            text = " " + text[1:]
        if text[1] in "IN":
            hidden = text[1] == "N" and not flags.plus and not flags.space
            return flags.padded(text[1:] if hidden else text, zeros=False)
        if flags.sharp and verb != "b":
            text = _with_point(text, verb, precision)
        if flags.plus or text[0] != "+":
            missing = (flags.width or 0) - len(text)
            if flags.zero and not flags.minus and missing > 0:
                return text[0] + "0" * missing + text[1:]
            return flags.padded(text)
        return flags.padded(text[1:])


def _prefix(digits: str, base: int, verb: str) -> str:
    if base == 16:
        return "0" + (verb if verb == "X" else "x")
    if base == 8:
        return "" if digits[0] == "0" else "0"
    return "0b" if base == 2 else ""


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
