"""MiniMax M3's calls: an element for each value, with a mark before every tag, and the elements of
lists and objects in one another: ``]<]minimax[>[<items>]<]minimax[>[<item>1]<]minimax[>[</item>…``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ollama_async.core.conversation import ToolCall
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.tool_schemas import Schema, Tools, call_of, value_of

MARK = "]<]minimax[>["
_TAG = re.compile(r"<(?P<close>/?)(?P<name>[^<>\s]++)(?:\s++name=\"(?P<attribute>[^\"]*+)\")?\s*+>")
_ITEM = "item"
_SCALARS = {"boolean", "number"}
"""What a value without a type of its own may be."""


class _Node(msgspec.Struct):
    """An element; ``texts`` are the pieces of what stands in it before its first child."""

    name: str
    texts: list[str] = []
    children: list[_Node] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)


def nested_calls(text: str, tools: Tools) -> Pieces | None:
    root = _tree(text)
    calls = [_call(node, tools) for node in root.children] if root else []
    return [call for call in calls if call] if calls and None not in calls else None


def _tree(text: str) -> _Node | None:
    """None: the tags do not match each other, or are too deep."""
    first, *pieces = text.split(MARK)
    path = [_Node("")]
    for piece in pieces:
        tag = _TAG.match(piece)
        if tag is None:
            path[-1].texts.append(MARK + piece)
        elif not tag["close"]:
            name = tag["attribute"] if len(path) == 1 else tag["name"]
            path[-1].children.append(_Node(name or "", [piece[tag.end() :]]))
            path.append(path[-1].children[-1])
        elif not _closes(tag["name"], path) or piece[tag.end() :].strip():
            return None
        else:
            path.pop()
        if len(path) > TOOL_DEPTH:
            return None
    return path[0] if len(path) == 1 and not first.strip() else None


def _closes(name: str, path: list[_Node]) -> bool:
    """Whether a closing tag belongs to the innermost element; calls have names of their own."""
    return len(path) == 2 or (len(path) > 2 and path[-1].name == name)


def _call(node: _Node, tools: Tools) -> ToolCall | None:
    if not node.name or node.text.strip():
        return None
    return call_of(node.name, _members(node, tools.schema(node.name)))


def _members(node: _Node, schema: Schema) -> dict[str, Any]:
    return {child.name: _value(child, schema.part(child.name)) for child in node.children}


def _value(node: _Node, schema: Schema) -> Any:
    types = schema.types()
    if not node.children:
        return _leaf(node.text, types)
    names = {child.name for child in node.children}
    if names == {_ITEM} and types != {"object"}:
        return [_value(child, schema.part(None)) for child in node.children]
    return _members(node, schema)


def _leaf(text: str, types: set[str]) -> Any:
    if not text and types and "string" not in types:
        return {"array": [], "object": {}}.get(next(iter(types)), text)
    return value_of(text, types or _SCALARS)
