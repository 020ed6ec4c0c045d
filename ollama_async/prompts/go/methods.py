"""The methods of Ollama's types that a template can call."""

from __future__ import annotations

from collections.abc import Callable

from ollama_async.prompts.go import types
from ollama_async.prompts.go.budget import Budget
from ollama_async.prompts.go.encode import encode
from ollama_async.prompts.go.failures import Rejected
from ollama_async.prompts.go.functions import Function
from ollama_async.prompts.go.printer import own_text
from ollama_async.prompts.go.types import Type
from ollama_async.prompts.go.typescript import typescript
from ollama_async.prompts.go.values import Map, Pointer, Sequence, Slice, Struct, Value


def find(value: Value, name: str) -> Function | None:
    """The method ``name`` of a value that is no longer boxed, bound to it."""
    run = _METHODS.get((_receiver(value), name))
    if run is None:
        return None
    return Function(_FIXED.get(name, ()), None, lambda budget, *args: run(value, budget, *args))


def _receiver(value: Value) -> Type | None:
    return getattr(value, "type", None)


def _pairs(value: Struct | Pointer) -> dict[str, Value]:
    target = value.target if isinstance(value, Pointer) else value
    return target.values if target is not None else {}


def _shown(value: Value, budget: Budget) -> str:
    text = own_text(value) or ""
    budget.text(len(text))
    return text


def _marshalled(value: Value, budget: Budget) -> Slice:
    text = encode(value) or ""
    budget.text(len(text))
    return Slice(types.BYTES, text.encode("utf-8", "replace"))


def _two_results(*_: Value) -> Value:
    raise Rejected(
        "invalid function signature for Get: second return value should be error; is bool"
    )


def _no_result(*_: Value) -> Value:
    raise Rejected("function Set has 0 return values; should be 1 or 2")


_FIXED: dict[str, tuple[str, ...]] = {"Get": ("string",), "Set": ("string", "value")}
_SHOWN = (types.TOOLS, types.TOOL, types.ARGUMENTS, types.PROPERTIES, types.PROPERTY_TYPES)
_METHODS: dict[tuple[Type | None, str], Callable[..., Value]] = {
    **{(kind, "String"): _shown for kind in _SHOWN},
    (types.PROPERTY, "ToTypeScriptType"): lambda value, _: typescript(value),
    (types.PROPERTY_TYPES, "MarshalJSON"): _marshalled,
}
for _kind in (types.PROPERTY_MAP, types.PROPERTY_MAP_POINTER):
    _METHODS |= {
        (_kind, "Len"): lambda value, _: len(_pairs(value)),
        (_kind, "ToMap"): lambda value, _: Map(types.PLAIN_PROPERTIES, _pairs(value)),
        (_kind, "All"): lambda value, _: Sequence(types.PROPERTY_SEQUENCE, _pairs(value)),
        (_kind, "MarshalJSON"): _marshalled,
        (_kind, "Get"): _two_results,
        (_kind, "Set"): _no_result,
    }
