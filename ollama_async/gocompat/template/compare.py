"""``eq ne lt le gt ge`` with Go's rules for what may be compared."""

from __future__ import annotations

from ollama_async.gocompat import types
from ollama_async.gocompat.budget import Budget
from ollama_async.gocompat.bytestrings import to_bytes
from ollama_async.gocompat.printf import sprintf
from ollama_async.gocompat.template.failures import CallFailed
from ollama_async.gocompat.values import (
    Pointer,
    Struct,
    Value,
    is_nil,
    kind_of,
    type_of,
    unboxed,
)

_BASIC = ("bool", "int", "uint", "float", "complex", "string")
_WHOLE = ("int", "uint")
_UNORDERED = ("bool", "complex")


def equal(first: Value, others: list[Value], budget: Budget) -> bool:
    """Whether ``first`` equals one of ``others``.

    :raises CallFailed: some of them cannot be compared.
    """
    if not others:
        raise CallFailed("missing argument for comparison")
    first = unboxed(first)
    return any(_equal(first, unboxed(other), budget) for other in others)


def _equal(one: Value, two: Value, budget: Budget) -> bool:
    kind, other = _basic(one), _basic(two)
    if kind != other:
        if kind in _WHOLE and other in _WHOLE:
            return int(one) == int(two)
        if one is None or two is None:
            return False
        raise CallFailed(_incompatible(one, two))
    if kind is not None:
        if kind == "string":
            budget.text(len(one))
        return bool(one == two)
    return _same_thing(one, two, budget)


def _same_thing(one: Value, two: Value, budget: Budget) -> bool:
    """Of values that are more than a number or a string."""
    if kind_of(one) != kind_of(two) and None not in (one, two):
        shown = sprintf("%s: %v, %s: %v", [one, str(type_of(one)), str(type_of(two)), two], budget)
        raise CallFailed(f"non-comparable types {shown}")
    if is_nil(one) or is_nil(two):
        return is_nil(one) == is_nil(two)
    if not _is_comparable(type_of(two)):
        shown = sprintf("%s: %v", [two, str(type_of(two))], budget)
        raise CallFailed(f"non-comparable type {shown}")
    if isinstance(one, Pointer) and isinstance(two, Pointer):
        return one.target is two.target
    return isinstance(one, Struct) and type_of(one) is type_of(two) and _same_parts(one, two)


def _same_parts(one: Struct, two: Struct) -> bool:
    return all(one.values[name] == two.values[name] for name in one.values)


def _is_comparable(kind: types.Type) -> bool:
    if kind.kind == "struct":
        return all(_is_comparable(member.type) for member in kind.members)
    return kind.kind not in ("slice", "map", "function")


def less(one: Value, two: Value, budget: Budget) -> bool:
    """:raises CallFailed: these have no order."""
    one, two = unboxed(one), unboxed(two)
    kind, other = _basic(one), _basic(two)
    if kind is None or other is None:
        raise CallFailed("invalid type for comparison")
    if kind != other and not (kind in _WHOLE and other in _WHOLE):
        raise CallFailed(_incompatible(one, two))
    if kind in _UNORDERED:
        raise CallFailed("invalid type for comparison")
    if kind == "string":
        budget.text(len(one) + len(two))
        return to_bytes(one) < to_bytes(two)
    return bool(one < two)


def _basic(value: Value) -> str | None:
    kind = kind_of(value)
    return kind if kind in _BASIC else None


def _incompatible(one: Value, two: Value) -> str:
    return f"incompatible types for comparison: {type_of(one)} and {type_of(two)}"
