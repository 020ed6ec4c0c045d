"""JSON values into Structs by the rules of Go's ``encoding/json``, with its error texts.

Field names are matched without regard to case, ``null`` is absent, unknown fields are ignored. The
errors are made from a Struct's annotations. Its name is that of Go's type, and ``Meta(extra={"go":
…})`` says where Go's name of a field's type differs. A Struct checks its own values in
``__post_init__`` and raises ``ValueError``; a field with ``Meta(extra={"raw": True})`` is checked
only there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ollama_async.core.errors import BadRequest
from ollama_async.gocompat.base64_text import from_base64

T = TypeVar("T", bound=msgspec.Struct)

_LONGEST_NAME = 64
"""Characters of a field's name; none is near it, and folding a long one would take its time."""


def unmarshal(value: Any, kind: type[T]) -> T:
    """Plain JSON ``value`` as ``kind``.

    :raises BadRequest: with Go's text.
    """
    reading = _Reading(kind.__name__)
    result = kind() if value is None else _type_of_struct(kind).read(reading, value)
    if reading.error:
        raise BadRequest(reading.error)
    assert isinstance(result, kind)
    return result


class _Type(msgspec.Struct, frozen=True):
    """How to read values of one type. ``go`` is Go's name of it.

    ``zero`` makes what Go leaves where ``null`` stands in a list, or a value of a wrong type.
    """

    go: str
    read: Callable[[_Reading, Any], Any]
    zero: Callable[[], Any]


class _Reading:
    """The place in one value, and the first error: Go reads on and reports it at the end."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.path: list[str] = []
        self.error = ""

    def element(self, kind: _Type, value: Any) -> Any:
        return kind.zero() if value is None else kind.read(self, value)

    def mismatch(self, value: Any, kind: _Type, *, literal: bool = False) -> Any:
        """Note that ``value`` does not fit; its place stays empty."""
        found = _JSON_NAMES[type(value)]
        if literal:
            found = f"{found} {value!r}"
        place = f"struct field {self.root}.{'.'.join(self.path)}" if self.path else "value"
        self.fail(f"json: cannot unmarshal {found} into Go {place} of type {kind.go}")
        return kind.zero()

    def fail(self, text: str) -> None:
        self.error = self.error or text


_JSON_NAMES = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}


@cache
def _type_of_struct(kind: type[msgspec.Struct]) -> _Type:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return _struct(described)


def _type_of(described: inspect.Type) -> _Type:
    """Of a msgspec type; unions are ``T | None``, where None is the zero value."""
    if isinstance(described, inspect.Metadata):
        extra = described.extra or {}
        if extra.get("raw"):
            return _anything("")
        if "go" in extra:
            return _built_in(described.type, extra["go"])
        return _type_of(described.type)
    if isinstance(described, inspect.UnionType):
        (one,) = (each for each in described.types if not isinstance(each, inspect.NoneType))
        return msgspec.structs.replace(_type_of(one), zero=lambda: None)
    if isinstance(described, inspect.StructType):
        return _type_of_struct(described.cls)
    return _built_in(described, "")


def _built_in(described: inspect.Type, go: str) -> _Type:
    """Under the name ``go``, or Go's usual one."""
    if isinstance(described, inspect.ListType):
        return _list(_type_of(described.item_type), go)
    if isinstance(described, inspect.DictType):
        return _dict(_type_of(described.value_type), go)
    if isinstance(described, inspect.AnyType):
        return _anything("interface {}")
    usual, python = _SCALARS[type(described)]
    return _bytes(go or usual) if python is bytes else _scalar(go or usual, python)


_SCALARS: dict[type[inspect.Type], tuple[str, type]] = {
    inspect.StrType: ("string", str),
    inspect.BoolType: ("bool", bool),
    inspect.IntType: ("int", int),
    inspect.BytesType: ("[]uint8", bytes),
}


def _anything(go: str) -> _Type:
    return _Type(go, lambda _, value: value, lambda: None)


def _scalar(go: str, python: type) -> _Type:
    def read(reading: _Reading, value: Any) -> Any:
        if type(value) is python:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                return reading.mismatch(value, kind, literal=True)
            return value
        return reading.mismatch(value, kind, literal=python is int and type(value) is float)

    kind = _Type(go, read, python)
    return kind


def _bytes(go: str) -> _Type:
    def read(reading: _Reading, value: Any) -> Any:
        if type(value) is not str:
            return reading.mismatch(value, kind)
        try:
            return from_base64(value)
        except ValueError as reason:
            reading.fail(str(reason))
            return b""

    kind = _Type(go, read, bytes)
    return kind


def _list(item: _Type, go: str) -> _Type:
    def read(reading: _Reading, value: Any) -> Any:
        if type(value) is not list:
            return reading.mismatch(value, kind)
        return [reading.element(item, each) for each in value]

    kind = _Type(go or f"[]{item.go}", read, list)
    return kind


def _dict(item: _Type, go: str) -> _Type:
    def read(reading: _Reading, value: Any) -> Any:
        if type(value) is not dict:
            return reading.mismatch(value, kind)
        return {key: reading.element(item, each) for key, each in value.items()}

    kind = _Type(go or f"map[string]{item.go}", read, dict)
    return kind


def _struct(described: inspect.StructType) -> _Type:
    cls = described.cls
    fields = {
        field.encode_name: (field.encode_name, field.name, _type_of(field.type))
        for field in described.fields
    }
    folded = {_fold(name): field for name, field in fields.items()}

    def read(reading: _Reading, value: Any) -> Any:
        if type(value) is not dict:
            return reading.mismatch(value, kind)
        found: dict[str, Any] = {}
        for key, each in value.items():
            field = fields.get(key)
            if field is None and len(key) <= _LONGEST_NAME:
                field = folded.get(_fold(key))
            if field is None or each is None:
                continue
            name, attribute, inner = field
            reading.path.append(name)
            found[attribute] = inner.read(reading, each)
            reading.path.pop()
        try:
            return cls(**found)
        except ValueError as reason:  # the Struct's own check; Go stops there, too
            raise BadRequest(str(reason)) from None

    kind = _Type(f"api.{cls.__name__}", read, cls)
    return kind


def _fold(name: str) -> str:
    """Unicode's simple case folding, as far as it reaches ASCII: Kelvin sign to k, long s to s."""
    return name.lower().replace("\u017f", "s")
