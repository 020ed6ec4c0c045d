"""Messages and tools as Ollama shows them to a Go template: their types, methods and values."""

from __future__ import annotations

import math
from typing import Any

from ollama_async.core.conversation import Message, ToolCall
from ollama_async.gocompat.json_encode import encode
from ollama_async.gocompat.render_budget import RenderBudget
from ollama_async.gocompat.values import (
    ANY,
    ANYTHINGS,
    BYTES,
    INT,
    OBJECT,
    STRING,
    STRINGS,
    UINT8,
    Function,
    Map,
    Member,
    Pointer,
    Sequence,
    Slice,
    Struct,
    Type,
    Value,
    type_of,
)


def _string_method(value: Value, budget: RenderBudget) -> str:
    to_text = type_of(value).to_text
    assert to_text is not None
    text = to_text(value)
    budget.spend_text(len(text))
    return text


def _marshal_method(value: Value, budget: RenderBudget) -> Slice:
    text = encode(value)
    budget.spend_text(len(text))
    return Slice(BYTES, text.encode("utf-8", "replace"))


def _never(*_: Value) -> Value:
    raise AssertionError


_STRING_METHOD = {"String": Function((), None, _string_method)}
_MARSHAL_METHOD = {"MarshalJSON": Function((), None, _marshal_method)}


# methods of a tool's properties


def _property_types_text(value: Slice) -> str:
    names = list(value.raw())
    return names[0] if len(names) == 1 else f"[{' '.join(names)}]" if names else ""


def _property_types_json(value: Slice) -> Value:
    if len(value) == 1:
        return value.at(0)
    return Slice(STRINGS, list(value.raw()), is_nil=value.is_nil)


def _members(**types: Type) -> tuple[Member, ...]:
    """Members whose JSON key is their name."""
    return tuple(Member(name, type_, name) for name, type_ in types.items())


def _pairs(value: Struct | Pointer) -> dict[str, Value]:
    struct = value.target if isinstance(value, Pointer) else value
    ordered = struct.values["om"].target if struct is not None else None
    return ordered.values if ordered is not None else {}


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _typescript(value: Struct, _: RenderBudget) -> str:
    choices = [_typescript(choice, _) for choice in value.values["AnyOf"].raw()]
    names = [_TYPESCRIPT.get(name, "any") for name in value.values["Type"].raw()]
    return " | ".join(choices or names) or "any"


IMAGE = Type("api.ImageData", "slice", UINT8)
IMAGES = Type("[]api.ImageData", "slice", IMAGE)

ARGUMENTS = Type("template.templateArgs", "map", ANY, to_text=encode, methods=_STRING_METHOD)
CALLED_FUNCTION = Type(
    "template.templateToolCallFunction",
    "struct",
    members=_members(Index=INT, Name=STRING, Arguments=ARGUMENTS),
)
TOOL_CALL = Type(
    "template.templateToolCall", "struct", members=_members(ID=STRING, Function=CALLED_FUNCTION)
)
TOOL_CALLS = Type("[]template.templateToolCall", "slice", TOOL_CALL)
MESSAGE = Type(
    "template.templateMessage",
    "struct",
    members=_members(
        Role=STRING,
        Content=STRING,
        Thinking=STRING,
        Images=IMAGES,
        ToolCalls=TOOL_CALLS,
        ToolName=STRING,
        ToolCallID=STRING,
    ),
)
MESSAGE_POINTER = Type("*template.templateMessage", "pointer", MESSAGE)
MESSAGES = Type("[]*template.templateMessage", "slice", MESSAGE_POINTER)

PROPERTY_TYPES = Type(
    "api.PropertyType",
    "slice",
    STRING,
    to_text=_property_types_text,
    to_json=_property_types_json,
    methods=_STRING_METHOD | _MARSHAL_METHOD,
)
ORDERED = Type("orderedmap.Map[string,github.com/ollama/ollama/api.ToolProperty]", "struct")
ORDERED_POINTER = Type(f"*{ORDERED}", "pointer", ORDERED)
_PROPERTY_MAP_METHODS = _MARSHAL_METHOD | {
    "Len": Function((), None, lambda value, _: len(_pairs(value))),
    "ToMap": Function((), None, lambda value, _: Map(PLAIN_PROPERTIES, _pairs(value))),
    "All": Function((), None, lambda value, _: Sequence(PROPERTY_SEQUENCE, _pairs(value))),
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
PROPERTY_MAP = Type(
    "api.ToolPropertiesMap",
    "struct",
    members=(Member("om", ORDERED_POINTER, "om"),),
    to_json=_pairs,
    methods=_PROPERTY_MAP_METHODS,
)
PROPERTY_MAP_POINTER = Type(
    "*api.ToolPropertiesMap", "pointer", PROPERTY_MAP, methods=_PROPERTY_MAP_METHODS
)
PROPERTY = Type(
    "api.ToolProperty",
    "struct",
    members=(
        # its elements are of this very type, which has no name yet
        Member("AnyOf", Type("[]api.ToolProperty", "slice"), "anyOf", omits_empty=True),
        Member("Type", PROPERTY_TYPES, "type", omits_empty=True),
        Member("Items", ANY, "items", omits_empty=True),
        Member("Description", STRING, "description", omits_empty=True),
        Member("Enum", ANYTHINGS, "enum", omits_empty=True),
        Member("Properties", PROPERTY_MAP_POINTER, "properties", omits_empty=True),
        Member("Required", STRINGS, "required", omits_empty=True),
    ),
    methods={"ToTypeScriptType": Function((), None, _typescript)},
)
PROPERTIES = Type(
    "template.templateProperties", "map", PROPERTY, to_text=encode, methods=_STRING_METHOD
)
PLAIN_PROPERTIES: Type = Type("map[string]api.ToolProperty", "map", PROPERTY)
PROPERTY_SEQUENCE: Type = Type(
    "iter.Seq2[string,github.com/ollama/ollama/api.ToolProperty]", "function"
)
PARAMETERS = Type(
    "template.templateToolFunctionParameters",
    "struct",
    members=(
        Member("Type", STRING, "type"),
        Member("Defs", ANY, "$defs", omits_empty=True),
        Member("Items", ANY, "items", omits_empty=True),
        Member("Required", STRINGS, "required", omits_empty=True),
        Member("Properties", PROPERTIES, "properties"),
    ),
)
FUNCTION = Type(
    "template.templateToolFunction",
    "struct",
    members=(
        Member("Name", STRING, "name"),
        Member("Description", STRING, "description"),
        Member("Parameters", PARAMETERS, "parameters"),
    ),
)
TOOL = Type(
    "template.templateTool",
    "struct",
    members=(
        Member("Type", STRING, "type"),
        Member("Items", ANY, "items", omits_empty=True),
        Member("Function", FUNCTION, "function"),
    ),
    to_text=encode,
    methods=_STRING_METHOD,
)
TOOLS = Type("template.templateTools", "slice", TOOL, to_text=encode, methods=_STRING_METHOD)


# values


def messages(turns: list[Message]) -> Slice:
    pointers = [Pointer(MESSAGE_POINTER, _message(turn)) for turn in turns]
    return Slice(MESSAGES, pointers, is_nil=not turns)


def tools(described: list[dict[str, Any]]) -> Slice:
    """What Ollama does not know of a tool's description is not shown; nothing is refused."""
    return _typed_slice(described, TOOLS)


def plain(value: Any) -> Value:
    """JSON as Go decodes it when it does not know the type."""
    if isinstance(value, bool | str | float) or value is None:
        return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, dict):
        return Map(OBJECT, {str(key): plain(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Slice(ANYTHINGS, [plain(item) for item in value])
    return str(value)


def _message(turn: Message) -> Struct:
    calls = [_call(call) for call in turn.tool_calls]
    images = [Slice(IMAGE, image) for image in turn.images]
    return Struct(
        MESSAGE,
        {
            "Role": turn.role,
            "Content": turn.content,
            "Thinking": turn.thinking,
            "Images": Slice(IMAGES, images, is_nil=not images),
            "ToolCalls": Slice(TOOL_CALLS, calls, is_nil=not calls),
            "ToolName": turn.tool_name,
            "ToolCallID": turn.tool_call_id,
        },
    )


def _call(call: ToolCall) -> Struct:
    arguments = {key: plain(value) for key, value in call.function.arguments.items()}
    function = {
        "Index": call.function.index,
        "Name": call.function.name,
        "Arguments": Map(ARGUMENTS, arguments),
    }
    return Struct(TOOL_CALL, {"ID": call.id, "Function": Struct(CALLED_FUNCTION, function)})


def _typed(value: Any, kind: Type) -> Value:
    """JSON as Go decodes it into ``kind``, but what is of another type is not there."""
    if kind is ANY:
        return plain(value)
    if kind is STRING:
        return value if isinstance(value, str) else ""
    if kind.kind == "slice":
        return _typed_slice(value, kind)
    items = value if isinstance(value, dict) else {}
    if kind.kind == "struct":
        members = kind.members
        return Struct(kind, {each.name: _typed(items.get(each.key), each.type) for each in members})
    pairs = {str(name): _typed(item, PROPERTY) for name, item in items.items()}
    if kind is PROPERTIES:
        return Map(kind, pairs)
    assert kind is PROPERTY_MAP_POINTER
    ordered = Pointer(ORDERED_POINTER, Struct(ORDERED, pairs))
    return Pointer(kind, Struct(PROPERTY_MAP, {"om": ordered}) if isinstance(value, dict) else None)


def _typed_slice(value: Any, kind: Type) -> Slice:
    if kind is PROPERTY_TYPES and isinstance(value, str):
        value = [value]
    given = value if isinstance(value, list) else []
    if kind.element is STRING:
        texts = [text for text in given if isinstance(text, str)]
        return Slice(kind, texts, is_nil=not isinstance(value, list))
    items = [_typed(item, kind.element or PROPERTY) for item in given]
    return Slice(kind, items, is_nil=not items)
