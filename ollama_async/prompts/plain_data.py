"""A conversation as dicts and lists, the way chat templates know it; fresh for each rendering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ollama_async.core.conversation import Message, ToolCall
from ollama_async.prompts.message_shapes import find_calls

Plain = dict[str, Any]


def plain_messages(messages: Sequence[Message]) -> list[Plain]:
    """Every call has an id of its own, and every result the id and the name of its call, also where
    clients left them out or gave one id twice.
    """
    plain = [_message(message) for message in messages]
    ids = _Ids()
    for message in plain:
        for call in message.get("tool_calls", ()):
            call["id"] = ids.own(call["id"])
    calls = find_calls(messages)
    for index, result in enumerate(plain):
        if index in calls:
            caller, number = calls[index]
            sent = messages[caller].tool_calls[number]
            _complete_result(result, sent, plain[caller]["tool_calls"][number])
        elif "tool_call_id" in result:
            result["tool_call_id"] = ids.own(result["tool_call_id"])
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


class _Ids:
    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._made = 0

    def own(self, wanted: str) -> str:
        """``wanted``, unless it is empty or taken: then a new one."""
        while not wanted or wanted in self._taken:
            self._made += 1
            wanted = f"call_{self._made}"
        self._taken.add(wanted)
        return wanted


def _complete_result(result: Plain, sent: ToolCall, call: Plain) -> None:
    """``sent`` is the call as the client sent it. An id that is not this call's remains."""
    if result.get("tool_call_id", sent.id) == sent.id:
        result["tool_call_id"] = call["id"]
        result.setdefault("name", sent.function.name)


def _tool(tool: Plain) -> Plain:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {"type": "object"}
    parameters.setdefault("properties", {})
    return tool | {"function": function | {"parameters": parameters}}
