"""Laguna's calls: pairs of tags, ``add{"a": 1}``, or JSON; some models nest the opening tag."""

from __future__ import annotations

import re

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.bodies.pairs import pairs
from ollama_async.prompts.parsers.json_calls import JsonCalls, named_object
from ollama_async.prompts.parsers.tool_schemas import Tools, call_of

_ALIASES = {
    "read_file": "read",
    "write_file": "write",
    "edit_file": "edit",
    "web_fetch": "webfetch",
}
_JSON = JsonCalls(values=("arguments",))
_NESTED = re.compile(r"\A(?:\s*<tool_call>)+")


def laguna_call(text: str, tools: Tools) -> Pieces | None:
    """Names that other agents have taught these models become those of the client's tools."""
    pieces = _read(_NESTED.sub("", text, count=1).strip(), tools)
    return pieces and [_renamed(piece, tools) for piece in pieces]


def _read(text: str, tools: Tools) -> Pieces | None:
    if text.startswith("{"):
        return _JSON(text, tools)
    name, brace, rest = text.partition("{")
    if brace and "<arg_key>" not in text:
        return named_object(brace + rest, tools, name.strip())
    return pairs(text, tools)


def _renamed(piece: ToolCall | str, tools: Tools) -> ToolCall | str:
    if isinstance(piece, str) or piece.function.name in tools:
        return piece
    alias = _ALIASES.get(piece.function.name, "")
    return call_of(alias, piece.function.arguments, piece.id) if alias in tools else piece
