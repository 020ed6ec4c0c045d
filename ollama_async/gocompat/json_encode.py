"""Encodes the values of templates, and plain values for files, as Go's ``encoding/json`` does."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ollama_async.gocompat.strconv import format_float
from ollama_async.gocompat.values import UINT8, Pointer, Slice, Struct, Value, type_of

_SPECIAL = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN_FROM, _PLAIN_TO = 1e-6, 1e21


def encode_line(value: Any) -> bytes:
    """A plain value or Struct and a line end, as Go's ``json.Encoder`` writes them.

    Dicts keep their order.
    """
    text = msgspec.json.encode(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return text + b"\n"


def encode(value: Value) -> str:
    """A template's value as compact JSON; empty where Go reports an error instead."""
    try:
        return "".join(_encoded(value))
    except _Unencodable:
        return ""


class _Unencodable(Exception):
    """JSON has no such number, or no such value."""


def _encoded(value: Value) -> Iterator[str]:  # noqa: C901, PLR0912  # a case for each kind
    if value is None:
        yield "null"
        return
    if isinstance(value, dict):
        yield from _object(value.items())
        return
    kind = type_of(value)
    if kind.to_json is not None:
        yield from _encoded(kind.to_json(value))
        return
    match kind.kind:
        case "bool":
            yield "true" if value else "false"
        case "int" | "uint":
            yield str(int(value))
        case "float":
            yield _float(value)
        case "string":
            yield _string(value)
        case "slice":
            yield from _slice(value)
        case "map":
            yield from _object(value.sorted())
        case "struct":
            yield from _struct(value)
        case "pointer":
            yield from _encoded(value.target)
        case "interface":
            yield from _encoded(value.value)
        case _:
            raise _Unencodable


def _string(value: str) -> str:
    return f'"{_SPECIAL.sub(_escaped, value)}"'


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\ud800" <= character <= "\udfff":  # what is no character
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise _Unencodable
    if value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        return format_float(value, "f", -1)
    return format_float(value, "e", -1).replace("e-0", "e-")


def _slice(value: Slice) -> Iterator[str]:
    if value.type.element is UINT8:
        yield f'"{base64.b64encode(value.to_bytes()).decode()}"'
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


def _object(pairs: Iterable[tuple[str, Value]]) -> Iterator[str]:
    yield "{"
    for number, (key, item) in enumerate(pairs):
        if number:
            yield ","
        yield _string(key) + ":"
        yield from _encoded(item)
    yield "}"


def _struct(value: Struct) -> Iterator[str]:
    return _object(
        (member.key, value.values[member.name])
        for member in value.type.members
        if not (member.omits_empty and _is_empty(value.values[member.name]))
    )


def _is_empty(value: Value) -> bool:
    if isinstance(value, Pointer):
        return value.target is None
    return value is None or (isinstance(value, str | Slice) and len(value) == 0)
