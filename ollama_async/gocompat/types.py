"""The Go types that a template can meet, as far as it can tell them apart."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "bool", "int", "uint", "float", "complex", "string",
    "slice", "map", "struct", "pointer", "interface", "function",
]  # fmt: skip


class Member(msgspec.Struct, frozen=True):
    """A struct's field; ``key`` is its name in JSON."""

    name: str
    type: Type
    key: str
    omits_empty: bool = False


class Type(msgspec.Struct, frozen=True, eq=False):
    """``element`` is what a slice, map or pointer holds.

    ``shows_json``: it prints itself as JSON.
    """

    name: str
    kind: Kind
    element: Type | None = None
    members: tuple[Member, ...] = ()
    shows_json: bool = False

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

IMAGE = Type("api.ImageData", "slice", UINT8)
IMAGES = Type("[]api.ImageData", "slice", IMAGE)

ARGUMENTS = Type("template.templateArgs", "map", ANY, shows_json=True)
CALLED_FUNCTION = Type(
    "template.templateToolCallFunction",
    "struct",
    members=(
        Member("Index", INT, "Index"),
        Member("Name", STRING, "Name"),
        Member("Arguments", ARGUMENTS, "Arguments"),
    ),
)
TOOL_CALL = Type(
    "template.templateToolCall",
    "struct",
    members=(Member("ID", STRING, "ID"), Member("Function", CALLED_FUNCTION, "Function")),
)
TOOL_CALLS = Type("[]template.templateToolCall", "slice", TOOL_CALL)
MESSAGE = Type(
    "template.templateMessage",
    "struct",
    members=(
        Member("Role", STRING, "Role"),
        Member("Content", STRING, "Content"),
        Member("Thinking", STRING, "Thinking"),
        Member("Images", IMAGES, "Images"),
        Member("ToolCalls", TOOL_CALLS, "ToolCalls"),
        Member("ToolName", STRING, "ToolName"),
        Member("ToolCallID", STRING, "ToolCallID"),
    ),
)
MESSAGE_POINTER = Type("*template.templateMessage", "pointer", MESSAGE)
MESSAGES = Type("[]*template.templateMessage", "slice", MESSAGE_POINTER)

PROPERTY_TYPES = Type("api.PropertyType", "slice", STRING)
ORDERED = Type("orderedmap.Map[string,github.com/ollama/ollama/api.ToolProperty]", "struct")
ORDERED_POINTER = Type(f"*{ORDERED}", "pointer", ORDERED)
PROPERTY_MAP = Type(
    "api.ToolPropertiesMap", "struct", members=(Member("om", ORDERED_POINTER, "om"),)
)
PROPERTY_MAP_POINTER = Type("*api.ToolPropertiesMap", "pointer", PROPERTY_MAP)
PROPERTY = Type(
    "api.ToolProperty",
    "struct",
    members=(
        # what it holds is its own type, which cannot be named before it exists
        Member("AnyOf", Type("[]api.ToolProperty", "slice"), "anyOf", omits_empty=True),
        Member("Type", PROPERTY_TYPES, "type", omits_empty=True),
        Member("Items", ANY, "items", omits_empty=True),
        Member("Description", STRING, "description", omits_empty=True),
        Member("Enum", ANYTHINGS, "enum", omits_empty=True),
        Member("Properties", PROPERTY_MAP_POINTER, "properties", omits_empty=True),
        Member("Required", STRINGS, "required", omits_empty=True),
    ),
)
PROPERTY_LIST = Type("[]api.ToolProperty", "slice", PROPERTY)
PROPERTIES = Type("template.templateProperties", "map", PROPERTY, shows_json=True)
PLAIN_PROPERTIES = Type("map[string]api.ToolProperty", "map", PROPERTY)
PROPERTY_SEQUENCE = Type("iter.Seq2[string,github.com/ollama/ollama/api.ToolProperty]", "function")
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
    shows_json=True,
)
TOOLS = Type("template.templateTools", "slice", TOOL, shows_json=True)
