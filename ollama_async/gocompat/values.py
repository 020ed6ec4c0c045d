"""Go values and their types, as far as a template can tell them apart.

Values are plain Python ones where nothing is lost, and small classes where Go knows more.

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

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import msgspec

Value = Any
"""One of the above. (A union of all would have to be narrowed everywhere.)"""

Kind = Literal[
    "bool", "int", "uint", "float", "complex", "string",
    "slice", "map", "struct", "pointer", "interface", "function",
]  # fmt: skip


class Function(msgspec.Struct, frozen=True):
    """What a template can call. ``run`` gets the render's budget and the arguments.

    ``fixed`` are the types of the first arguments, ``rest`` that of all others (None: no others).
    A type is ``string``, ``any`` (the value is unboxed) or ``value`` (it is not).
    ``refusal`` says why the function cannot be called.
    """

    fixed: tuple[str, ...]
    rest: str | None
    run: Callable[..., Value]
    refusal: str = ""


class Member(msgspec.Struct, frozen=True):
    """A struct's field; ``key`` is its name in JSON."""

    name: str
    type: Type
    key: str
    omits_empty: bool = False


class Type(msgspec.Struct, frozen=True, eq=False):
    """``element`` is what a slice, map or pointer holds.

    ``to_text`` is how ``fmt`` shows values of the type (``String``). ``to_json`` returns the value
    that is encoded in place of one (``MarshalJSON``); a dict keeps its order. The ``run`` of its
    ``methods`` gets the receiver first.
    """

    name: str
    kind: Kind
    element: Type | None = None
    members: tuple[Member, ...] = ()
    to_text: Callable[[Value], str] | None = None
    to_json: Callable[[Value], Value | dict[str, Value]] | None = None
    methods: Mapping[str, Function] = {}

    def __str__(self) -> str:
        return self.name

    def member(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)


BOOL = Type("bool", "bool")
INT = Type("int", "int")
UINT8 = Type("uint8", "uint")
FLOAT = Type("float64", "float")
COMPLEX = Type("complex128", "complex")
STRING = Type("string", "string")
ANY = Type("interface {}", "interface")
ANYTHINGS = Type("[]interface {}", "slice", ANY)
STRINGS = Type("[]string", "slice", STRING)
BYTES = Type("[]uint8", "slice", UINT8)
OBJECT = Type("map[string]interface {}", "map", ANY)


class Byte(int):
    """A ``uint8``."""


class Boxed(msgspec.Struct, frozen=True, eq=False):
    """A value read from a place of type ``interface{}``; errors show the difference."""

    value: Value


NIL = Boxed(None)


class Slice(msgspec.Struct, eq=False):
    """``items[start:stop]``, as a view; ``is_nil``: Go's nil slice, which is also empty."""

    type: Type
    items: list[Value] | bytes
    is_nil: bool = False
    start: int = 0
    stop: int = -1
    capacity: int = -1

    def __post_init__(self) -> None:
        if self.stop < 0:
            self.stop = self.capacity = len(self.items)

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
        first = self.start + start
        return Slice(
            self.type, self.items, self.is_nil, first, self.start + stop, capacity=limit - start
        )

    def to_bytes(self) -> bytes:
        return bytes(self.items[self.start : self.stop])


class Map(msgspec.Struct, eq=False):
    """String keys; ``items`` keeps its order, Go's order is the sorted one."""

    type: Type
    items: dict[str, Value]

    def __len__(self) -> int:
        return len(self.items)

    def sorted(self) -> list[tuple[str, Value]]:
        """Keys and values in the order in which Go visits them (by bytes, as by code)."""
        return sorted(self.items.items(), key=itemgetter(0))

    def get(self, key: str) -> Value:
        """The value as a place; the zero value if there is none."""
        if key in self.items:
            return placed(self.items[key], self.type.element)
        return zero(self.type.element)


class Struct(msgspec.Struct, eq=False):
    type: Type
    values: dict[str, Value]

    def get(self, name: str) -> Value:
        member = self.type.member(name)
        return placed(self.values[name], member.type if member else None)


class Pointer(msgspec.Struct, eq=False):
    """``target`` None: a nil pointer."""

    type: Type
    target: Struct | None


class Sequence(msgspec.Struct, eq=False):
    """A function that ``range`` can iterate: keys and values, in their own order."""

    type: Type
    pairs: dict[str, Value]


_PLAIN = {
    bool: BOOL,
    int: INT,
    Byte: UINT8,
    float: FLOAT,
    complex: COMPLEX,
    str: STRING,
    Boxed: ANY,
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


def method_of(value: Value, name: str) -> Function | None:
    """The method ``name`` of a value that is not boxed, bound to it."""
    kind: Type | None = getattr(value, "type", None)
    method = kind.methods.get(name) if kind is not None else None
    return method and msgspec.structs.replace(method, run=partial(method.run, value))


def placed(value: Value, kind: Type | None) -> Value:
    """``value`` as read from a place of the type ``kind``."""
    if kind is UINT8:
        return Byte(value)
    if kind is not ANY:
        return value
    return NIL if value is None else Boxed(value)


def unboxed(value: Value) -> Value:
    return value.value if isinstance(value, Boxed) else value


def indirect(value: Value) -> tuple[Value, bool]:
    """What a box or pointer leads to; or the nil one that it leads to, and true."""
    while isinstance(value, Boxed | Pointer):
        inner = value.value if isinstance(value, Boxed) else value.target
        if inner is None:
            return value, True
        value = inner
    return value, False


def is_nil(value: Value) -> bool:
    """Whether comparing with ``nil`` gives true."""
    if isinstance(value, Slice):
        return value.is_nil
    return value is None or indirect(value)[1]


def is_true(value: Value) -> bool:
    """Go's truth: neither zero nor empty. A struct is always true."""
    value = unboxed(value)
    if isinstance(value, Pointer):
        return value.target is not None
    if isinstance(value, Slice | Map):
        return len(value) > 0
    return isinstance(value, Struct | Sequence) or bool(value)


def zero(kind: Type | None) -> Value:
    """The zero value of the element type of a map."""
    if kind is None or kind is ANY:
        return NIL
    if kind.kind == "slice":
        return Slice(kind, [], is_nil=True)
    if kind.kind == "pointer":
        return Pointer(kind, None)
    if kind.kind == "struct":
        return Struct(kind, {each.name: unboxed(zero(each.type)) for each in kind.members})
    assert kind.kind == "string"
    return ""
