"""Converts JSON values into Structs by the rules of Go's ``encoding/json``, with its errors.

Field names are matched without regard to case, ``null`` is absent, unknown fields are ignored. The
errors are made from a Struct's annotations. Its name, or its ``go_name`` (``package.Type``), is
that of Go's type, and ``Meta(extra={"go": …})`` says where Go's name of a field's type differs. A
Struct checks its own values in ``__post_init__`` and raises ``ValueError``; a field with
``Meta(extra={"raw": True})`` is checked only there, or by its reader. A union takes values of each
of its types; Go's programs check such a field themselves, so ``Meta(extra={"mismatch": "… %s"})``
has the text of its error, with Go's type of the value.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ollama_async.core.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/\r\n]")
_WINDOW = 1 << 18  # letters
_LONGEST_NAME = 64
"""Characters of a field's name; none is near it, and folding a long one would take its time."""


def unmarshal(value: Any, kind: type[T]) -> T:
    """Plain JSON ``value`` as ``kind``.

    :raises BadRequest: with Go's text.
    """
    _, _, root = _go_name(kind).rpartition(".")
    reading = _Reading(root)
    result = kind() if value is None else reading.read(_type_of_struct(kind), value)
    if reading.error:
        raise BadRequest(reading.error)
    assert isinstance(result, kind)
    return result


class _Type(msgspec.Struct, frozen=True):
    """How to read values of one type. ``go`` is Go's name of it.

    ``convert`` gets values of the Python types ``json``; none: every value is taken as it is.
    ``zero`` makes what Go leaves where ``null`` stands in a list, or a value of a wrong type.
    ``members``: those of a union, whose other fields are those of the first one.
    """

    go: str
    json: tuple[type, ...]
    convert: Callable[[_Reading, Any], Any]
    zero: Callable[[], Any]
    members: tuple[_Type, ...] = ()
    mismatch: str = ""


class _Reading:
    """The path in one value, and the first error. Go reads on and reports it at the end."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.path: list[str] = []
        self.error = ""

    def read(self, kind: _Type, value: Any) -> Any:
        """``value`` as ``kind``. The zero value replaces one of a wrong type."""
        if not kind.json:
            return value
        for member in kind.members:
            if type(value) in member.json:
                return self.read(member, value)
        is_right_type = type(value) in kind.json
        if is_right_type and (kind.json != _INT or -(2**63) <= value < 2**63):
            return kind.convert(self, value)
        if kind.mismatch:
            raise BadRequest(kind.mismatch % _GO_TYPES[type(value)])
        found = _JSON_NAMES[type(value)]
        if kind.json == _INT and (is_right_type or type(value) is float):
            found += f" {value!r}"
        place = f"struct field {self.root}.{'.'.join(self.path)}" if self.path else "value"
        self.fail(f"json: cannot unmarshal {found} into Go {place} of type {kind.go}")
        return kind.zero()

    def element(self, kind: _Type, value: Any) -> Any:
        return kind.zero() if value is None else self.read(kind, value)

    def fail(self, text: str) -> None:
        self.error = self.error or text


_INT = (int,)
_JSON_NAMES = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
_GO_TYPES = {
    str: "string",
    bool: "bool",
    int: "float64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}
"""Of values in an ``interface {}``."""


@cache
def _type_of_struct(kind: type[msgspec.Struct]) -> _Type:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    fields = {
        field.encode_name: (field.encode_name, field.name, _type_of(field.type))
        for field in described.fields
    }
    folded = {_fold(name): field for name, field in fields.items()}

    def convert(reading: _Reading, value: Any) -> Any:
        found: dict[str, Any] = {}
        for key, each in value.items():
            field = fields.get(key)
            if field is None and len(key) <= _LONGEST_NAME:
                field = folded.get(_fold(key))
            if field is None or each is None:
                continue
            name, attribute, inner = field
            reading.path.append(name)
            found[attribute] = reading.read(inner, each)
            reading.path.pop()
        try:
            return kind(**found)
        except ValueError as reason:  # the Struct's own check; Go stops there, too
            raise BadRequest(str(reason)) from None

    return _Type(_go_name(kind), (dict,), convert, kind)


def _go_name(kind: type[msgspec.Struct]) -> str:
    """With its package."""
    parent, _, module = kind.__module__.rpartition(".")
    package, _, _ = module.partition("_")  # a package of Ollama's may be several modules here
    package = package if parent.endswith(".api") and package != "ollama" else "api"
    return getattr(kind, "go_name", f"{package}.{kind.__name__}")


def _type_of(described: inspect.Type, go: str = "") -> _Type:
    """The type that msgspec describes, under the name ``go`` or Go's usual one.

    None is the zero value of unions with it.
    """
    if isinstance(described, inspect.Metadata):
        extra = described.extra or {}
        inner = _ANY if extra.get("raw") else _type_of(described.type, extra.get("go", ""))
        return msgspec.structs.replace(inner, mismatch=extra.get("mismatch", ""))
    if isinstance(described, inspect.UnionType):
        members = [
            _type_of(each) for each in described.types if not isinstance(each, inspect.NoneType)
        ]
        first = msgspec.structs.replace(members[0], zero=lambda: None)
        return (
            first if len(members) == 1 else msgspec.structs.replace(first, members=tuple(members))
        )
    if isinstance(described, inspect.StructType):
        return _type_of_struct(described.cls)
    if isinstance(described, inspect.ListType):
        item = _type_of(described.item_type)
        return _Type(
            go or f"[]{item.go}",
            (list,),
            lambda reading, value: [reading.element(item, each) for each in value],
            list,
        )
    if isinstance(described, inspect.DictType):
        item = _type_of(described.value_type)
        return _Type(
            go or f"map[string]{item.go}",
            (dict,),
            lambda reading, value: {key: reading.element(item, value[key]) for key in value},
            dict,
        )
    usual = _SCALARS[type(described)]
    return msgspec.structs.replace(usual, go=go or usual.go)


def _bytes(reading: _Reading, value: str) -> bytes:
    try:
        return from_base64(value)
    except ValueError as reason:
        reading.fail(str(reason))
        return b""


_ANY = _Type("interface {}", (), lambda _, value: value, lambda: None)
_SCALARS = {
    inspect.AnyType: _ANY,
    inspect.StrType: _Type("string", (str,), _ANY.convert, str),
    inspect.BoolType: _Type("bool", (bool,), _ANY.convert, bool),
    inspect.IntType: _Type("int", _INT, _ANY.convert, int),
    inspect.FloatType: _Type("float64", (float, int), lambda _, value: float(value), float),
    inspect.BytesType: _Type("[]uint8", (str,), _bytes, bytes),
}


def _fold(name: str) -> str:
    """Unicode's simple case folding, as far as it reaches ASCII: Kelvin sign to k, long s to s."""
    return name.lower().replace("\u017f", "s")


def from_base64(text: str, *, offset: int = 0) -> bytes:
    """The bytes of standard base64 with padding; line ends inside are skipped, as in Go.

    ``offset`` is added to the position in the error.

    :raises ValueError: ``illegal base64 data at input byte N``.
    """
    for letters in (text, text.replace("\r", "").replace("\n", "")):
        with suppress(ValueError):
            return _strict_base64(letters)
    raise ValueError(f"illegal base64 data at input byte {offset + _illegal_at(text)}")


def _strict_base64(letters: str) -> bytes:
    """In windows, since a call holds the interpreter for 1 ms per megabyte.

    :raises ValueError: it is not base64.
    """
    if len(letters) <= _WINDOW:
        return binascii.a2b_base64(letters, strict_mode=True)
    if 0 <= letters.find("=") < len(letters) - 2:
        raise ValueError("padding inside")
    windows = (letters[at : at + _WINDOW] for at in range(0, len(letters), _WINDOW))
    return b"".join(binascii.a2b_base64(each, strict_mode=True) for each in windows)


def _illegal_at(text: str) -> int:
    """Where Go stops reading: the offset of the first error, in bytes of UTF-8."""
    foreign = _NOT_BASE64.search(text)
    if foreign is None:  # the last group of four is short
        letters = len(text) - text.count("\r") - text.count("\n")
        return len(text) - letters % 4
    at = foreign.start()
    before = text[:at]
    letters = at - before.count("\r") - before.count("\n")
    if foreign.group() != "=" or letters % 4 < 2:
        return at
    after = (index for index in range(at + 1, len(text)) if text[index] not in "\r\n")
    rest = list(islice(after, 2))
    if letters % 4 == 2:
        if not rest:
            return len(text)
        if text[rest[0]] != "=":
            return rest[0] - 1
        del rest[0]
    return rest[0] if rest else len(text)
