"""The methods of Ollama's types that a template can call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ollama_async.gocompat import types
from ollama_async.gocompat.budget import Budget
from ollama_async.gocompat.json_encode import encode
from ollama_async.gocompat.printer import own_text
from ollama_async.gocompat.template.funcs import Function
from ollama_async.gocompat.template.typescript import typescript
from ollama_async.gocompat.types import Type
from ollama_async.gocompat.values import Map, Pointer, Sequence, Slice, Struct, Value

_Method = Callable[[Value, Budget], Value]


def find(value: Value, name: str) -> Function | None:
    """The method ``name`` of a value that is no longer boxed, bound to it."""
    kind = getattr(value, "type", None)
    if kind in _OF_PROPERTY_MAP and name in _REFUSED:
        return _REFUSED[name]
    method = _METHODS.get((kind, name))
    return None if method is None else Function((), None, partial(method, value))


def _shown(value: Value, budget: Budget) -> str:
    text = own_text(value) or ""
    budget.text(len(text))
    return text


def _marshalled(value: Value, budget: Budget) -> Slice:
    text = encode(value) or ""
    budget.text(len(text))
    return Slice(types.BYTES, text.encode("utf-8", "replace"))


def _typescript(value: Value, _: Budget) -> str:
    return typescript(value)


def _length(value: Struct | Pointer, _: Budget) -> int:
    return len(_pairs(value))


def _to_map(value: Struct | Pointer, _: Budget) -> Map:
    return Map(types.PLAIN_PROPERTIES, _pairs(value))


def _all(value: Struct | Pointer, _: Budget) -> Sequence:
    return Sequence(types.PROPERTY_SEQUENCE, _pairs(value))


def _pairs(value: Struct | Pointer) -> dict[str, Value]:
    struct = value.target if isinstance(value, Pointer) else value
    ordered = struct.values["om"].target if struct is not None else None
    return ordered.values if ordered is not None else {}


def _never(*_: Value) -> Value:
    raise AssertionError


_SHOWN = (types.TOOLS, types.TOOL, types.ARGUMENTS, types.PROPERTIES, types.PROPERTY_TYPES)
_OF_PROPERTY_MAP = (types.PROPERTY_MAP, types.PROPERTY_MAP_POINTER)
_METHODS: dict[tuple[Type | None, str], _Method] = {
    **{(kind, "String"): _shown for kind in _SHOWN},
    (types.PROPERTY, "ToTypeScriptType"): _typescript,
    (types.PROPERTY_TYPES, "MarshalJSON"): _marshalled,
    **{(kind, "Len"): _length for kind in _OF_PROPERTY_MAP},
    **{(kind, "ToMap"): _to_map for kind in _OF_PROPERTY_MAP},
    **{(kind, "All"): _all for kind in _OF_PROPERTY_MAP},
    **{(kind, "MarshalJSON"): _marshalled for kind in _OF_PROPERTY_MAP},
}
_REFUSED = {
    "Get": Function(
        ("string",),
        None,
        _never,
        "invalid function signature for Get: second return value should be error; is bool",
    ),
    "Set": Function(
        ("string", "value"), None, _never, "function Set has 0 return values; should be 1 or 2"
    ),
}
