"""The shape of tools, as far as Ollama reads it; what else is in them goes along untouched."""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.gocompat.json_decode import unmarshal


class ToolProperty(msgspec.Struct):
    description: str = ""


class ToolFunctionParameters(msgspec.Struct):
    required: list[str] = []
    properties: dict[str, ToolProperty] = {}


class ToolFunction(msgspec.Struct):
    name: str = ""
    description: str = ""
    parameters: ToolFunctionParameters | None = None


class Tool(msgspec.Struct):
    type: str = ""
    function: ToolFunction | None = None


_ChatRequest = msgspec.defstruct("ChatRequest", [("tools", list[Tool], [])])


def check_tools(tools: list[dict[str, Any]]) -> None:
    """So that who renders them need not ask what is a string and what an object.

    :raises BadRequest: in Go's words.
    """
    try:
        msgspec.convert(tools, list[Tool])
    except msgspec.ValidationError:
        unmarshal({"tools": tools}, _ChatRequest)
