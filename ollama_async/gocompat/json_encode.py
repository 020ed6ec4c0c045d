"""Go's ``encoding/json``: what ``json`` and the values that print themselves write."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator

from ollama_async.gocompat import types
from ollama_async.gocompat.floats import formatted
from ollama_async.gocompat.values import (
    Boxed,
    Map,
    Pointer,
    Sequence,
    Slice,
    Struct,
    Value,
    kind_of,
)

_SPECIAL = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN_FROM, _PLAIN_TO = 1e-6, 1e21


class _Unencodable(Exception):
    """JSON has no such number, or no such value."""


def encode(value: Value) -> str | None:
    """``value`` as compact JSON; None: Go reports an error instead."""
    try:
        return "".join(_encoded(value))
    except _Unencodable:
        return None


def _encoded(value: Value) -> Iterator[str]:
    if value is None:
        yield "null"
    else:
        yield from _BY_KIND[kind_of(value)](value)


def _string(value: str) -> Iterator[str]:
    yield f'"{_SPECIAL.sub(_escaped, value)}"'


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\ud800" <= character <= "\udfff":  # what is no character
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _float(value: float) -> Iterator[str]:
    if not math.isfinite(value):
        raise _Unencodable
    if value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        yield formatted(value, "f", -1)
        return
    yield formatted(value, "e", -1).replace("e-0", "e-")


def _slice(value: Slice) -> Iterator[str]:
    if value.type.element is types.UINT8:
        yield f'"{base64.b64encode(value.bytes()).decode()}"'
        return
    if value.type is types.PROPERTY_TYPES and len(value) == 1:
        yield from _string(value.at(0))
        return
    if value.is_nil:
        yield "null"
        return
    yield "["
    for number, item in enumerate(value.raw()):
        if number:
            yield ","
        yield from _encoded(item)
    yield "]"


def _map(value: Map) -> Iterator[str]:
    return _pairs(iter(value.sorted()))


def _pairs(pairs: Iterator[tuple[str, Value]]) -> Iterator[str]:
    yield "{"
    for number, (key, item) in enumerate(pairs):
        if number:
            yield ","
        yield from _string(key)
        yield ":"
        yield from _encoded(item)
    yield "}"


def _struct(value: Struct) -> Iterator[str]:
    if value.type is types.PROPERTY_MAP:
        return _encoded(value.values["om"])
    if value.type is types.ORDERED:
        return _pairs(iter(value.values.items()))
    return _pairs(
        (member.key, value.values[member.name])
        for member in value.type.members
        if not (member.omits_empty and _is_empty(value.values[member.name]))
    )


def _is_empty(value: Value) -> bool:
    if isinstance(value, Pointer):
        return value.target is None
    return value is None or (isinstance(value, str | Slice) and len(value) == 0)


def _pointer(value: Pointer) -> Iterator[str]:
    return _encoded(value.target)


def _boxed(value: Boxed) -> Iterator[str]:
    return _encoded(value.value)


def _refuse(_: complex | Sequence) -> Iterator[str]:
    raise _Unencodable


_BY_KIND: dict[str, Callable[[Value], Iterator[str]]] = {
    "bool": lambda value: iter(("true" if value else "false",)),
    "int": lambda value: iter((str(int(value)),)),
    "uint": lambda value: iter((str(int(value)),)),
    "float": _float,
    "complex": _refuse,
    "string": _string,
    "slice": _slice,
    "map": _map,
    "struct": _struct,
    "pointer": _pointer,
    "interface": _boxed,
    "function": _refuse,
}
