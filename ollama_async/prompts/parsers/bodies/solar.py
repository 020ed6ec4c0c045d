"""Solar's calls: ``x1<|tool_call:name|>add<|tool_call:args|>{"a": 1}``; an id comes first."""

from __future__ import annotations

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.tool_schemas import Tools, arguments, call_of

SEPARATORS = ("<|tool_call:name|>", "<|tool_call:args|>")


def solar_call(text: str, tools: Tools) -> Pieces | None:
    del tools
    call_id, _, rest = text.partition(SEPARATORS[0])
    name, separator, rest = rest.partition(SEPARATORS[1])
    given = arguments(rest)
    if not separator or not name.strip() or given is None:
        return None
    return [call_of(name.strip(), given, call_id.strip())]
