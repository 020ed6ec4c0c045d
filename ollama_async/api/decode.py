"""One function between the bytes of a request and its Struct, as lenient as Ollama's.

The fast road is msgspec with unknown fields forbidden: exact names, right types, UTF-8. Whatever it
refuses, and what is too much for one call, is read by ``scan``, then fitted to the Struct as Go
would do it: field names without regard to case, ``null`` is absent, unknown fields are ignored, and
the errors have Go's words, made from the Struct's own annotations. A Struct is named as Go's type
is, ``Meta(extra={"go": …})`` says what differs. A Struct checks its own values in ``__post_init__``
and raises ``ValueError``; fields with ``Meta(extra={"raw": True})`` are not type-checked, because
``__post_init__`` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ollama_async.api.bounds import TEXT_LIMIT_BYTES, check_text, fits_one_call
from ollama_async.api.images import put_back, take_out
from ollama_async.core.errors import BadRequest
from ollama_async.core.json_depth import is_deep
from ollama_async.gocompat.base64_text import from_base64
from ollama_async.gocompat.json_scan import scan

T = TypeVar("T", bound=msgspec.Struct)

_LONGEST_NAME = 64
"""Characters of a field's name; none is near it, and folding a long one would take its time."""

_packer = msgspec.msgpack.Encoder()


def decode(body: bytes, kind: type[T]) -> T:
    """The first JSON value of ``body`` as ``kind`` (a Struct with ``forbid_unknown_fields``).

    The result nests at most :data:`~ollama_async.core.json_depth.MAX_DEPTH` levels deep and holds
    no integer beyond 64 bits, so that it can be packed. Time is linear: about 2 ns per byte on the
    fast path, up to 1 µs per JSON token on the other. Decode more than some 64 KiB in a thread.

    :raises BadRequest: with Go's text, or because there are too many values.
    :raises TooLarge: over :data:`~ollama_async.api.bounds.TEXT_LIMIT_BYTES`, not counting images. A
        ``kind`` with a ``body_limit_bytes`` has a limit of its own, for all of it.
    """
    if len(body) <= getattr(kind, "body_limit_bytes", TEXT_LIMIT_BYTES):
        return _read(body, kind)
    body, images = take_out(body)
    request = _read(body, kind)
    put_back(request, images)
    return request


def _read(body: bytes, kind: type[T]) -> T:
    if fits_one_call(body):
        try:
            request: T = _fast(kind).decode(body)
            _packer.encode(request)  # in C and at once: finds integers that nobody could pass on
            if not is_deep(body):
                return request
        except (ValueError, OverflowError, RecursionError):
            pass  # DecodeError, ValidationError and UnicodeDecodeError are ValueErrors
    check_text(body)
    return fit(scan(body), kind)


def fit(value: Any, kind: type[T]) -> T:
    """Plain JSON ``value`` as ``kind``, by Go's rules. :raises BadRequest: with Go's text."""
    reader = _Reader(kind.__name__)
    result = kind() if value is None else reader.read(_shape(kind), value)
    if reader.complaint:
        raise BadRequest(reader.complaint)
    assert isinstance(result, kind)
    return result


@cache
def _fast(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


class _Shape(msgspec.Struct, frozen=True):
    """How to read one type: ``go`` is Go's name of it, ``read`` gets the reader and the value.

    ``zero`` makes what Go leaves where ``null`` stands in a list, or a value of a wrong type.
    """

    go: str
    read: Callable[[_Reader, Any], Any]
    zero: Callable[[], Any]


class _Reader:
    """The state of one reading: where we are, and the first complaint (Go goes on and tells it)."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.path: list[str] = []
        self.complaint = ""

    def read(self, shape: _Shape, value: Any) -> Any:
        return shape.zero() if value is None else shape.read(self, value)

    def mismatch(self, value: Any, shape: _Shape, *, literal: bool = False) -> Any:
        """Note that ``value`` does not fit; its place stays empty."""
        said = _JSON_NAMES[type(value)]
        if literal:
            said = f"{said} {value!r}"
        place = f"struct field {self.root}.{'.'.join(self.path)}" if self.path else "value"
        self.complain(f"json: cannot unmarshal {said} into Go {place} of type {shape.go}")
        return shape.zero()

    def complain(self, text: str) -> None:
        self.complaint = self.complaint or text


_JSON_NAMES = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}


@cache
def _shape(kind: type[msgspec.Struct]) -> _Shape:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return _struct_shape(described)


def _shape_of(described: inspect.Type) -> _Shape:
    """The shape of a msgspec type; unions are ``T | None``, where None is the zero value."""
    if isinstance(described, inspect.Metadata):
        extra = described.extra or {}
        if extra.get("raw"):
            return _Shape("", lambda _, value: value, lambda: None)
        inner = _shape_of(described.type)
        return _renamed(described.type, extra["go"]) if "go" in extra else inner
    if isinstance(described, inspect.UnionType):
        (one,) = (each for each in described.types if not isinstance(each, inspect.NoneType))
        inner = _shape_of(one)
        return _Shape(inner.go, inner.read, lambda: None)
    if isinstance(described, inspect.StructType):
        return _shape(described.cls)
    return _renamed(described, "")


def _renamed(described: inspect.Type, go: str) -> _Shape:
    """The shape of a built-in type, under the name ``go`` or Go's usual one."""
    if isinstance(described, inspect.ListType):
        return _list_shape(_shape_of(described.item_type), go)
    if isinstance(described, inspect.DictType):
        return _dict_shape(_shape_of(described.value_type), go)
    if isinstance(described, inspect.AnyType):
        return _Shape("interface {}", lambda _, value: value, lambda: None)
    usual, python, zero = _SCALARS[type(described)]
    if python is bytes:
        return _bytes_shape(go or usual)

    def read(reader: _Reader, value: Any) -> Any:
        if type(value) is python:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                return reader.mismatch(value, shape, literal=True)
            return value
        number_for_number = python is int and type(value) is float
        return reader.mismatch(value, shape, literal=number_for_number)

    shape = _Shape(go or usual, read, zero)
    return shape


_SCALARS: dict[type[inspect.Type], tuple[str, type, Callable[[], Any]]] = {
    inspect.StrType: ("string", str, str),
    inspect.BoolType: ("bool", bool, bool),
    inspect.IntType: ("int", int, int),
    inspect.BytesType: ("[]uint8", bytes, bytes),
}


def _bytes_shape(go: str) -> _Shape:
    def read(reader: _Reader, value: Any) -> Any:
        if type(value) is not str:
            return reader.mismatch(value, shape)
        try:
            return from_base64(value)
        except ValueError as reason:
            reader.complain(str(reason))
            return b""

    shape = _Shape(go, read, bytes)
    return shape


def _list_shape(item: _Shape, go: str) -> _Shape:
    def read(reader: _Reader, value: Any) -> Any:
        if type(value) is not list:
            return reader.mismatch(value, shape)
        return [reader.read(item, each) for each in value]

    shape = _Shape(go or f"[]{item.go}", read, list)
    return shape


def _dict_shape(item: _Shape, go: str) -> _Shape:
    def read(reader: _Reader, value: Any) -> Any:
        if type(value) is not dict:
            return reader.mismatch(value, shape)
        return {key: reader.read(item, each) for key, each in value.items()}

    shape = _Shape(go or f"map[string]{item.go}", read, dict)
    return shape


def _struct_shape(described: inspect.StructType) -> _Shape:
    kind = described.cls
    fields = {field.encode_name: (field.name, _shape_of(field.type)) for field in described.fields}
    folded = {_fold(name): field for name, field in fields.items()}

    def read(reader: _Reader, value: Any) -> Any:
        if type(value) is not dict:
            return reader.mismatch(value, shape)
        found: dict[str, Any] = {}
        for key, each in value.items():
            field = fields.get(key)
            if field is None and len(key) <= _LONGEST_NAME:
                field = folded.get(_fold(key))
            if field is None or each is None:
                continue
            name, inner = field
            reader.path.append(key if key in fields else _named(fields, name))
            found[name] = inner.read(reader, each)
            reader.path.pop()
        try:
            return kind(**found)
        except ValueError as reason:  # the Struct's own check; Go stops there, too
            raise BadRequest(str(reason)) from None

    shape = _Shape(f"api.{kind.__name__}", read, kind)
    return shape


def _named(fields: dict[str, tuple[str, _Shape]], name: str) -> str:
    return next(wire for wire, field in fields.items() if field[0] == name)


def _fold(name: str) -> str:
    """Unicode's simple case folding, as far as it reaches ASCII: Kelvin sign to k, long s to s."""
    return name.lower().replace("\u017f", "s")
