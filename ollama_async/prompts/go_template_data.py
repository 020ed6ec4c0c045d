"""Messages and tools as Ollama shows them to a template."""

from __future__ import annotations

from typing import Any

from ollama_async.core.conversation import Message, ToolCall
from ollama_async.gocompat import types
from ollama_async.gocompat.values import Map, Pointer, Slice, Struct, Value


def messages(turns: list[Message]) -> Slice:
    pointers = [Pointer(types.MESSAGE_POINTER, _message(turn)) for turn in turns]
    return Slice(types.MESSAGES, pointers, is_nil=not turns)


def tools(described: list[dict[str, Any]]) -> Slice:
    """What Ollama does not know of a tool's description is not shown; nothing is refused."""
    return Slice(types.TOOLS, [_tool(_object(tool)) for tool in described], is_nil=not described)


def plain(value: Any) -> Value:
    """JSON as Go decodes it when it does not know the type."""
    if isinstance(value, bool | str | float) or value is None:
        return value
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, dict):
        return Map(types.OBJECT, {str(key): plain(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Slice(types.ANYTHINGS, [plain(item) for item in value])
    return str(value)


def _number(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _message(turn: Message) -> Struct:
    calls = [_call(call) for call in turn.tool_calls]
    images = [Slice(types.IMAGE, image) for image in turn.images]
    return Struct(
        types.MESSAGE,
        {
            "Role": turn.role,
            "Content": turn.content,
            "Thinking": turn.thinking,
            "Images": Slice(types.IMAGES, images, is_nil=not images),
            "ToolCalls": Slice(types.TOOL_CALLS, calls, is_nil=not calls),
            "ToolName": turn.tool_name,
            "ToolCallID": turn.tool_call_id,
        },
    )


def _call(call: ToolCall) -> Struct:
    arguments = {key: plain(value) for key, value in call.function.arguments.items()}
    function = Struct(
        types.CALLED_FUNCTION,
        {
            "Index": call.function.index,
            "Name": call.function.name,
            "Arguments": Map(types.ARGUMENTS, arguments),
        },
    )
    return Struct(types.TOOL_CALL, {"ID": call.id, "Function": function})


def _tool(tool: dict[str, Any]) -> Struct:
    function = _object(tool.get("function"))
    parameters = _object(function.get("parameters"))
    shown = Struct(
        types.PARAMETERS,
        {
            "Type": _text(parameters.get("type")),
            "Defs": plain(parameters.get("$defs")),
            "Items": plain(parameters.get("items")),
            "Required": _texts(parameters.get("required"), types.STRINGS),
            "Properties": Map(types.PROPERTIES, _properties(parameters.get("properties"))),
        },
    )
    return Struct(
        types.TOOL,
        {
            "Type": _text(tool.get("type")),
            "Items": plain(tool.get("items")),
            "Function": Struct(
                types.FUNCTION,
                {
                    "Name": _text(function.get("name")),
                    "Description": _text(function.get("description")),
                    "Parameters": shown,
                },
            ),
        },
    )


def _properties(described: Any) -> dict[str, Value]:
    return {str(name): _property(_object(item)) for name, item in _object(described).items()}


def _property(described: dict[str, Any]) -> Struct:
    kind = described.get("type")
    nested = described.get("properties")
    choices = [_property(_object(choice)) for choice in _list(described.get("anyOf"))]
    values = [plain(value) for value in _list(described.get("enum"))]
    return Struct(
        types.PROPERTY,
        {
            "AnyOf": Slice(types.PROPERTY_LIST, choices, is_nil=not choices),
            "Type": _texts([kind] if isinstance(kind, str) else kind, types.PROPERTY_TYPES),
            "Items": plain(described.get("items")),
            "Description": _text(described.get("description")),
            "Enum": Slice(types.ANYTHINGS, values, is_nil=not values),
            "Properties": Pointer(
                types.PROPERTY_MAP_POINTER,
                _ordered(_properties(nested)) if isinstance(nested, dict) else None,
            ),
            "Required": _texts(described.get("required"), types.STRINGS),
        },
    )


def _ordered(pairs: dict[str, Value]) -> Struct:
    inner = Pointer(types.ORDERED_POINTER, Struct(types.ORDERED, pairs))
    return Struct(types.PROPERTY_MAP, {"om": inner})


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any, kind: types.Type) -> Slice:
    texts = [text for text in _list(value) if isinstance(text, str)]
    return Slice(kind, texts, is_nil=not isinstance(value, list))
