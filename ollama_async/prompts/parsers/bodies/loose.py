"""Calls of models that only a Go template describes: a declared name, and JSON near it."""

from __future__ import annotations

from typing import Any

from ollama_async.core.conversation import ToolCall
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.json_calls import JsonCalls
from ollama_async.prompts.parsers.tool_schemas import Tools, arguments, call_of, decoded

_NAMED = JsonCalls()


def loose_call(text: str, tools: Tools) -> Pieces | None:
    """The call's name is in the JSON or stands before it."""
    start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
    if start < 0:
        return None
    before, value = text[:start], decoded(text[start:])
    values = value if isinstance(value, list) else [value]
    named = [_named(one, tools, 0) for one in values]
    if named and all(named):
        return [*_text(before), *(call for call in named if call)]
    return _after_name(before, value, tools) if isinstance(value, dict) else None


def _after_name(before: str, value: dict[str, Any], tools: Tools) -> Pieces | None:
    """A call whose arguments are ``value``, or in it under the tool's name."""
    name = max((name for name in tools if name in before), key=len, default="")
    if name:
        return [*_text(before.replace(name, "", 1)), call_of(name, value)]
    name = next((name for name in tools if name in value), "")
    given = arguments(value[name]) if name else None
    return None if given is None else [*_text(before), call_of(name, given)]


def _text(before: str) -> Pieces:
    """What stands before a call, unless it only leads to it."""
    return [before] if any(map(str.isalnum, before)) else []


def _named(value: Any, tools: Tools, depth: int) -> ToolCall | None:
    """The call in ``value`` or in something inside it."""
    if depth > TOOL_DEPTH:
        return None
    call = _NAMED.one(value)
    if call and call.function.name in tools:
        return call
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((call for one in inner if (call := _named(one, tools, depth + 1))), None)
