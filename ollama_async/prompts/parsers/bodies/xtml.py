"""Kimi K3's calls: ``tool="add" index="1"<|sep|>``, then an element for each argument, whose tag
says what type its value has; or all of them as one JSON text.
"""

from __future__ import annotations

import re
from typing import Any

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.tool_schemas import Tools, arguments, call_of, decoded

ARGUMENT = ("<|open|>argument ", "<|close|>argument<|sep|>")
JSON = ("<|open|>json", "<|close|>json<|sep|>")

_HEAD = re.compile(r'\s*+tool="(?P<name>[^"]*+)"[^<]*+<\|sep\|>')
_ARGUMENT = re.compile(
    r'\s*+<\|open\|>argument key="(?P<key>[^"]*+)"(?: type="(?P<type>[^"]*+)")?[^<]*+<\|sep\|>'
    r"(?P<value>.*?)<\|close\|>argument<\|sep\|>(?=\s*+(?:<\|open\|>argument |$))",
    re.DOTALL,
)
_JSON = re.compile(
    r"\s*+<\|open\|>json[^<]*+<\|sep\|>(?P<value>.*)<\|close\|>json<\|sep\|>\s*+", re.DOTALL
)


def xtml_call(text: str, tools: Tools) -> Pieces | None:
    head = _HEAD.match(text)
    if head is None or not head["name"].strip():
        return None
    name = _unescaped(head["name"]).strip()
    block = _JSON.fullmatch(text, head.end())
    given = arguments(block["value"]) if block else _arguments(text, head.end(), name, tools)
    return None if given is None else [call_of(name, given)]


def _arguments(text: str, at: int, name: str, tools: Tools) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    while found := _ARGUMENT.match(text, at):
        if ARGUMENT[0] in found["value"]:
            return None
        key = _unescaped(found["key"])
        given[key] = _value(found["value"], found["type"], tools, name, key)
        at = found.end()
    return None if text[at:].strip() else given


def _value(text: str, type_: str | None, tools: Tools, name: str, key: str) -> Any:
    if type_ == "string":
        return text
    value = decoded(text) if type_ else None
    return tools.value(name, key, text) if value is None else value


def _unescaped(text: str) -> str:
    return text.replace("&quot;", '"').replace("&amp;", "&")
