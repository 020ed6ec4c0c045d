"""Floating-point numbers as Go writes them."""

from __future__ import annotations

import math
import struct

_MANTISSA_BITS = 52
_HEX_DIGITS = _MANTISSA_BITS // 4
_LEAST_EXPONENT, _MOST_EXPONENT = -4, 5
"""Between them the shortest form of ``%g`` needs none."""


def formatted(value: float, verb: str, precision: int) -> str:
    """As ``strconv.FormatFloat``; ``precision`` -1: as many digits as make the number unique."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb == "b":
        return _binary(value)
    if verb in "xX":
        text = _hex(value, precision)
        return text.upper() if verb == "X" else text
    if precision >= 0:
        return f"{value:.{precision}{verb}}"
    return _shortest(value, verb)


def shortest_digits(value: float) -> tuple[str, int]:
    """The fewest digits that are this number alone, and how many of them stand before the point."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    return (digits, point) if digits else ("0", 1)


def _shortest(value: float, verb: str) -> str:
    digits, point = shortest_digits(value)
    sign = "-" if math.copysign(1, value) < 0 else ""
    if verb in "eE":
        return sign + _scientific(digits, point, verb)
    if verb in "gG" and not _LEAST_EXPONENT <= point - 1 <= _MOST_EXPONENT:
        return sign + _scientific(digits, point, "e" if verb == "g" else "E")
    return sign + _plain(digits, point)


def _scientific(digits: str, point: int, letter: str) -> str:
    exponent = 0 if digits == "0" else point - 1
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}{letter}{exponent:+03d}"


def _plain(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def _binary(value: float) -> str:
    (bits,) = struct.unpack(">Q", struct.pack(">d", value))
    mantissa = bits & ((1 << _MANTISSA_BITS) - 1)
    exponent = bits >> _MANTISSA_BITS & 0x7FF
    if exponent:
        mantissa |= 1 << _MANTISSA_BITS
    sign = "-" if bits >> 63 else ""
    return f"{sign}{mantissa}p{max(exponent, 1) - 1075:+d}"


def _hex(value: float, precision: int) -> str:
    sign = "-" if math.copysign(1, value) < 0 else ""
    if value == 0:
        fraction, exponent = "", 0
    else:
        scaled, exponent = math.frexp(abs(value))
        mantissa = int(math.ldexp(scaled, _MANTISSA_BITS + 1))  # 1.fraction in 53 bits
        exponent -= 1
        if 0 <= precision < _HEX_DIGITS:
            mantissa, exponent = _round_mantissa(mantissa, exponent, precision)
        fraction = f"{mantissa & ((1 << _MANTISSA_BITS) - 1):013x}".rstrip("0")
    if precision >= 0:
        fraction = fraction.ljust(precision, "0")
    lead = "0" if value == 0 else "1"
    point = "." if fraction else ""
    return f"{sign}0x{lead}{point}{fraction}p{exponent:+03d}"


def _round_mantissa(mantissa: int, exponent: int, digits: int) -> tuple[int, int]:
    """To the nearest number with so many hexadecimal digits, halves to even."""
    dropped = 4 * (_HEX_DIGITS - digits)
    kept, rest = mantissa >> dropped, mantissa & ((1 << dropped) - 1)
    half = 1 << (dropped - 1)
    kept += rest > half or (rest == half and kept & 1)
    mantissa = kept << dropped
    if mantissa >> (_MANTISSA_BITS + 1):
        return mantissa >> 1, exponent + 1
    return mantissa, exponent
