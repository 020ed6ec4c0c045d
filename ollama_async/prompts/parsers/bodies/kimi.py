"""Kimi's calls: ``functions.add:0<|tool_call_argument_begin|>{"a": 1}``; the head is an id."""

from __future__ import annotations

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.tool_schemas import Tools, arguments, call_of

SEPARATOR = "<|tool_call_argument_begin|>"


def kimi_call(text: str, tools: Tools) -> Pieces | None:
    del tools
    call_id, separator, rest = text.partition(SEPARATOR)
    call_id = call_id.strip()
    name = call_id.removeprefix("functions.").partition(":")[0]
    given = arguments(rest)
    if not separator or not name or given is None:
        return None
    return [call_of(name, given, call_id)]
