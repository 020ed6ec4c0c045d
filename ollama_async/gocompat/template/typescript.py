"""The TypeScript type of a tool's property."""

from __future__ import annotations

from ollama_async.gocompat import types
from ollama_async.gocompat.values import Struct, Value, unboxed

_NAMES = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def typescript(value: Value) -> str:
    """``any`` for what is no property, or of any type."""
    value = unboxed(value)
    if not isinstance(value, Struct) or value.type is not types.PROPERTY:
        return "any"
    choices = [typescript(choice) for choice in value.values["AnyOf"].raw()]
    names = [_NAMES.get(name, "any") for name in value.values["Type"].raw()]
    return " | ".join(choices or names) or "any"
