"""A conversation as dicts and lists, the way chat templates know it; fresh for each rendering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ollama_async.conversation import Message, ToolCall

Plain = dict[str, Any]


def plain_messages(messages: Sequence[Message]) -> list[Plain]:
    """Every call has an id, and every result the id of its call, also where clients left it out."""
    plain = [_message(message) for message in messages]
    _complete_ids(plain)
    return plain


def plain_tools(tools: Sequence[Plain]) -> list[Plain]:
    """Functions have parameters with properties, as in Ollama: some templates look there unasked.
    What is added comes last: models are trained with keys in the client's order.
    """
    return [_tool(msgspec.to_builtins(tool)) for tool in tools]


def _message(message: Message) -> Plain:
    plain: Plain = {"role": message.role, "content": message.content}
    if message.thinking:
        plain["reasoning_content"] = plain["thinking"] = message.thinking
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_name:
        plain["name"] = message.tool_name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _call(call: ToolCall) -> Plain:
    arguments = msgspec.to_builtins(call.function.arguments)
    return {
        "type": "function",
        "id": call.id,
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _complete_ids(messages: list[Plain]) -> None:
    """A result without an id answers the first open call of its name, or the first of any."""
    open_calls: dict[str, str] = {}  # name by id
    made = 0
    for message in messages:
        for call in message.get("tool_calls", ()):
            if not call["id"]:
                made += 1
                call["id"] = f"call_{made}"
            open_calls[call["id"]] = call["function"]["name"]
        if message["role"] != "tool":
            continue
        if "tool_call_id" not in message and open_calls:
            name = message.get("name")
            same = (each for each, other in open_calls.items() if other == name)
            message["tool_call_id"] = next(same, next(iter(open_calls)))
        answered = open_calls.pop(message.get("tool_call_id", ""), "")
        if answered and "name" not in message:
            message["name"] = answered


def _tool(tool: Plain) -> Plain:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {"type": "object"}
    parameters.setdefault("properties", {})
    return tool | {"function": function | {"parameters": parameters}}
