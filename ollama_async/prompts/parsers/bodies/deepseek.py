# ruff: noqa: RUF001, RUF002 - the full-width bars are in these marks
"""DeepSeek's calls: ``add<｜tool▁sep｜>{"a": 1}``, or with a kind of tool first and a fence."""

from __future__ import annotations

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.json_calls import fenced, named_object
from ollama_async.prompts.parsers.tool_schemas import Tools

SEPARATOR = "<｜tool▁sep｜>"


def deepseek_call(text: str, tools: Tools) -> Pieces | None:
    first, separator, rest = text.partition(SEPARATOR)
    if not separator:
        return None
    name, fence, block = rest.partition("```")
    if fence and "{" not in name:  # not within the arguments
        return named_object(fenced(fence + block), tools, name.strip())
    return named_object(rest, tools, first.strip())
