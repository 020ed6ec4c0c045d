"""Go values: plain Python ones where nothing is lost, small classes where Go knows more.

========================  =========================================================
``bool, int, float,``     the same in Go; an ``int`` is Go's ``int``, so numbers from
``complex, str``          JSON are always ``float``
:class:`Byte`             ``uint8``
:class:`Slice`            slices and arrays; :class:`Map`, :class:`Struct`,
                          :class:`Pointer`: as they say
:class:`Boxed`            a variable of type ``interface{}``, with what is in it
``None``                  no value at all (in a ``Boxed``: nil)
========================  =========================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ollama_async.gocompat import types
from ollama_async.gocompat.bytestrings import byte_length
from ollama_async.gocompat.types import Type

Value = Any
"""One of the above. (A union of all of them would be narrowed at every turn.)"""


class Byte(int):
    """A ``uint8``."""


class Boxed:
    """What is read from a place of type ``interface{}``; templates see the difference in errors."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value


NIL = Boxed(None)


class Slice:
    """``items[start:stop]``, as a view; ``is_nil``: Go's nil slice, which is also empty."""

    __slots__ = ("capacity", "is_nil", "items", "start", "stop", "type")

    def __init__(self, kind: Type, items: list[Value] | bytes, *, is_nil: bool = False) -> None:
        self.type = kind
        self.items = items
        self.start, self.stop = 0, len(items)
        self.capacity = len(items)
        self.is_nil = is_nil

    def __len__(self) -> int:
        return self.stop - self.start

    def raw(self) -> Iterator[Value]:
        """The elements, boxes removed."""
        for index in range(self.start, self.stop):
            yield self.items[index]

    def at(self, index: int) -> Value:
        """The element as a place: boxed if the slice holds ``interface{}``."""
        return placed(self.items[self.start + index], self.type.element)

    def cut(self, start: int, stop: int, limit: int) -> Slice:
        """``self[start:stop:limit]``; the caller has checked the bounds."""
        part = Slice(self.type, self.items, is_nil=self.is_nil)
        part.start, part.stop = self.start + start, self.start + stop
        part.capacity = limit - start
        return part

    def bytes(self) -> bytes:
        return bytes(self.items[self.start : self.stop])


class Map:
    """String keys; ``items`` keeps its order, Go's order is the sorted one."""

    __slots__ = ("items", "type")

    def __init__(self, kind: Type, items: dict[str, Value]) -> None:
        self.type = kind
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def sorted(self) -> list[tuple[str, Value]]:
        """Keys and values in the order in which Go visits them (by bytes, as by code)."""
        return sorted(self.items.items(), key=_key)

    def get(self, key: str) -> Value:
        """The value as a place; the zero value if there is none."""
        if key in self.items:
            return placed(self.items[key], self.type.element)
        return zero(self.type.element)


class Struct:
    __slots__ = ("type", "values")

    def __init__(self, kind: Type, values: dict[str, Value]) -> None:
        self.type = kind
        self.values = values

    def get(self, name: str) -> Value:
        member = self.type.member(name)
        return placed(self.values[name], member.type if member else None)


class Pointer:
    """``target`` None: a nil pointer."""

    __slots__ = ("target", "type")

    def __init__(self, kind: Type, target: Struct | None) -> None:
        self.type = kind
        self.target = target


class Sequence:
    """A function that ``range`` can walk: keys and values, in their own order."""

    __slots__ = ("pairs", "type")

    def __init__(self, kind: Type, pairs: dict[str, Value]) -> None:
        self.type = kind
        self.pairs = pairs


_PLAIN = {
    bool: types.BOOL,
    int: types.INT,
    Byte: types.UINT8,
    float: types.FLOAT,
    complex: types.COMPLEX,
    str: types.STRING,
    Boxed: types.ANY,
}


def type_of(value: Value) -> Type:
    """The type of a value (not None)."""
    plain = _PLAIN.get(type(value))
    if plain is not None:
        return plain
    found: Type = value.type
    return found


def kind_of(value: Value) -> str:
    """The kind of its type; ``invalid`` for None."""
    return "invalid" if value is None else type_of(value).kind


def placed(value: Value, kind: Type | None) -> Value:
    """``value`` as read from a place of the type ``kind``."""
    if kind is types.UINT8:
        return Byte(value)
    if kind is not types.ANY:
        return value
    return NIL if value is None else Boxed(value)


def unboxed(value: Value) -> Value:
    return value.value if isinstance(value, Boxed) else value


def indirect(value: Value) -> tuple[Value, bool]:
    """What a box or pointer leads to, and whether it ends in a nil one, which is then returned."""
    while isinstance(value, Boxed | Pointer):
        inner = value.value if isinstance(value, Boxed) else value.target
        if inner is None:
            return value, True
        value = inner
    return value, False


def is_nil(value: Value) -> bool:
    """Whether comparing with ``nil`` says yes."""
    if value is None:
        return True
    if isinstance(value, Slice):
        return value.is_nil
    return isinstance(value, Boxed | Pointer) and indirect(value)[1]


def is_true(value: Value) -> bool:
    """Go's truth: neither zero nor empty. A struct is always true."""
    value = unboxed(value)
    if value is None or isinstance(value, Pointer):
        return value is not None and value.target is not None
    if isinstance(value, Slice | Map):
        return len(value) > 0
    return bool(value) if not isinstance(value, Struct | Sequence) else True


def length(value: Value) -> int | None:
    """Go's ``len``; None: it has none."""
    if isinstance(value, str):
        return byte_length(value)
    return len(value) if isinstance(value, Slice | Map) else None


def zero(kind: Type | None) -> Value:
    """The zero value of the element type of a map."""
    if kind is None or kind is types.ANY:
        return NIL
    return _ZEROS[kind.kind](kind)


def _zero_struct(kind: Type) -> Struct:
    return Struct(kind, {member.name: _zero_raw(member.type) for member in kind.members})


def _zero_raw(kind: Type) -> Value:
    return None if kind is types.ANY else zero(kind)


_ZEROS = {
    "string": lambda _: "",
    "slice": lambda kind: Slice(kind, [], is_nil=True),
    "pointer": lambda kind: Pointer(kind, None),
    "struct": _zero_struct,
}


def _key(item: tuple[str, Value]) -> str:
    return item[0]
