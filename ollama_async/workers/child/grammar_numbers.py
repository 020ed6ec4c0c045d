"""Bounds of numbers, as exactly as the library can hold to them.

It reads them as floating-point numbers and compares digits, so that a bound with more digits than
such a number has would let pass what it forbids. Such a bound moves inwards, by less than one part
in 10^14 (integers: 10^15), and no bound is farther from zero than 2^63; what comes is always valid.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar_tree import Schema

_EXACT = 1 << 53  # up to here all integers are floating-point numbers
_FARTHEST = (1 << 63) - 1024  # the last floating-point number of 63 bits
_FARTHEST_DECIMAL = 9_223_372_036_854_770_000  # the last one of 15 digits
_OPEN_ENDED = 10**18  # from here on the library needs to know the other end
_DIGITS = 15  # a decimal number of so many has the same digits as a floating-point number

_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def fit_bounds(schema: Schema) -> None:
    """Put bounds that the library keeps in the place of those in ``schema``.

    :raises BadRequest: there are none.
    """
    for plain, exclusive in (_LOWER, _UPPER):
        _modernize(schema, plain, exclusive)
    if _is_of_integers(schema):
        for plain, exclusive in (_LOWER, _UPPER):
            _include(schema, plain, exclusive)
    for keyword in (*_LOWER, *_UPPER):
        if _is_number(schema.get(keyword)):
            schema[keyword] = _inwards(schema, keyword)
    _close(schema)


def _modernize(schema: Schema, plain: str, exclusive: str) -> None:
    """Draft 4, and OpenAPI with it, says whether the plain bound is exclusive."""
    if schema.get(exclusive) is True and plain in schema:
        schema[exclusive] = schema.pop(plain)
    elif isinstance(schema.get(exclusive), bool):
        del schema[exclusive]


def _is_of_integers(schema: Schema) -> bool:
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    return "integer" in listed and "number" not in listed


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _include(schema: Schema, plain: str, exclusive: str) -> None:
    """One bound that integers may reach."""
    is_lower = plain == "minimum"
    found: list[int] = []
    if _is_number(schema.get(plain)):
        value = schema[plain]
        found.append(math.ceil(value) if is_lower else math.floor(value))
    if _is_number(schema.get(exclusive)):
        value = schema.pop(exclusive)
        found.append(math.floor(value) + 1 if is_lower else math.ceil(value) - 1)
    if found:
        schema[plain] = max(found) if is_lower else min(found)


def _inwards(schema: Schema, keyword: str) -> Any:
    value, is_lower = schema[keyword], keyword in _LOWER
    of_integers = _is_of_integers(schema)
    farthest = _FARTHEST if of_integers else _FARTHEST_DECIMAL
    value = max(value, -farthest) if is_lower else min(value, farthest)
    if abs(value) > farthest:
        raise BadRequest(f'format: "{keyword}" cannot be enforced for such a number')
    if abs(value) <= _EXACT:
        return value
    return _next_integer(value, up=is_lower) if of_integers else _next_decimal(value, up=is_lower)


def _next_integer(value: int, *, up: bool) -> int:
    near = float(value)
    if (near < value) if up else (near > value):
        near = math.nextafter(near, math.inf if up else -math.inf)
    return int(near)


def _next_decimal(value: float, *, up: bool) -> int:
    """Inwards as a decimal number and as the floating-point number next to that."""
    context = Context(_DIGITS, ROUND_CEILING if up else ROUND_FLOOR)
    near = context.create_decimal(Decimal(value))
    if up and float(near) < value:
        near = context.next_plus(near)
    elif not up and float(near) > value:
        near = context.next_minus(near)
    return int(near)


def _close(schema: Schema) -> None:
    """The other end, where the library needs one."""
    farthest = _FARTHEST if _is_of_integers(schema) else _FARTHEST_DECIMAL
    lowest = [schema[key] for key in _LOWER if _is_number(schema.get(key))]
    highest = [schema[key] for key in _UPPER if _is_number(schema.get(key))]
    if lowest and not highest and max(lowest) >= _OPEN_ENDED:
        schema["maximum"] = farthest
    if highest and not lowest and min(highest) <= -_OPEN_ENDED:
        schema["minimum"] = -farthest


def is_exact(value: object) -> bool:
    """Whether the library can write this number, and all in it, to the last digit."""
    if isinstance(value, dict):
        return all(map(is_exact, value.values()))
    if isinstance(value, list):
        return all(map(is_exact, value))
    if isinstance(value, int) and abs(value) > _EXACT:
        return abs(value) <= _FARTHEST and int(float(value)) == value
    return True
