"""The tools that a client offers, as far as reading calls of them needs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ollama_async.conversation import ToolCall, ToolFunction

_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{\]}]', re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_PLAIN = re.compile(r"[\w.$-]{1,128}")
_INT64 = 2**63
_DECODER = msgspec.json.Decoder()

DEPTH = 64
"""Values in values; against answers and schemas that would exhaust the stack, also that of those
who write a call out again.
"""


class Tools:
    """``described`` comes from a client: whatever is not of the right shape is not there."""

    def __init__(self, described: list[dict[str, Any]]) -> None:
        self._parameters: dict[str, dict[str, Any]] = {}
        self._types: dict[tuple[str, str], set[str]] = {}
        for tool in described:
            function = _mapping(_mapping(tool).get("function"))
            name = function.get("name")
            if isinstance(name, str) and name.strip():
                self._parameters[name.strip()] = _mapping(function.get("parameters"))

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def accepts(self, call: ToolCall) -> bool:
        """Whether it is a call of one of these, with all that its tool requires."""
        parameters = self._parameters.get(call.function.name)
        if parameters is None:
            return False
        required = parameters.get("required")
        return not isinstance(required, list) or all(
            name in call.function.arguments for name in required if isinstance(name, str)
        )

    def value(self, tool: str, parameter: str, text: str) -> Any:
        """What ``text`` means for a parameter, by the types in the tool's schema."""
        types = self._types.get((tool, parameter))
        if types is None:
            properties = _mapping(self._parameters.get(tool, {}).get("properties"))
            types = _types(_mapping(properties.get(parameter)))
            self._types[tool, parameter] = types
        return value_of(text, types)


def is_plain(name: str) -> bool:
    """Whether a tool's name looks like the names in programs and is no longer than they are; only
    such names may become part of a mark.
    """
    return _PLAIN.fullmatch(name) is not None


def call_of(name: str, arguments: dict[str, Any], call_id: str = "") -> ToolCall:
    return ToolCall(ToolFunction(name, arguments), id=call_id)


def value_of(text: str, types: set[str]) -> Any:
    """The most specific of the JSON types that ``text`` can be; else the text itself."""
    if text.lower() == "null":
        return None
    if types == {"boolean"}:
        return text.lower() == "true"
    for type_, value in _VALUES:
        if type_ in types and (found := value(text)) is not None:
            return found
    return text


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _integer(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) and -_INT64 <= int(text) < _INT64 else None


def _number(text: str) -> int | float | str | None:
    return number(text) if NUMBER.fullmatch(text) else None


def _array(text: str) -> list[Any] | None:
    return found if isinstance(found := decoded(text), list) else None


def number(text: str) -> int | float | str:
    """A number without fraction is whole; one that no number type holds remains text."""
    found = float(text)
    if found in {float("inf"), float("-inf")}:
        return text
    if found.is_integer() and abs(found) < _INT64:
        return int(found)
    return found


def decoded(text: str) -> Any:
    """The value of a JSON text; None as well if it is none (or says ``null``), or too deep."""
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if _is_deep(text) else value


def _is_deep(text: str) -> bool:
    """Whether a JSON text has more than :data:`DEPTH` values in one another."""
    if text.count("[") + text.count("{") <= DEPTH:
        return False
    depth = 0
    for found in _NESTING.finditer(text):
        sign = found.group()
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEPTH:
            return True
    return False


def arguments(value: Any) -> dict[str, Any] | None:
    """A call's arguments: an object, or its JSON as text; nothing at all is an empty one."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = decoded(value) if value.strip() else {}
    return value if isinstance(value, dict) else None


def _object(text: str) -> dict[str, Any] | None:
    return found if isinstance(found := decoded(text), dict) else None


_VALUES: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("boolean", _boolean),
    ("integer", _integer),
    ("number", _number),
    ("array", _array),
    ("object", _object),
)
"""The most specific type first."""


def _types(schema: dict[str, Any], depth: int = 0) -> set[str]:
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(alternatives, list):
        inner = alternatives if depth < DEPTH else []
        return set().union(*(_types(_mapping(one), depth + 1) for one in inner))
    types = schema.get("type")
    names = types if isinstance(types, list) else [types]
    return {name for name in names if isinstance(name, str)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
