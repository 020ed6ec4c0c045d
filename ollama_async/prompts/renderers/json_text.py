"""JSON in the styles in which prompts carry it, and how much of it there may be."""

from __future__ import annotations

import json
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Prompt
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.gocompat.budget import TEXT_LIMIT
from ollama_async.prompts.render_limits import allow_number, allow_text

_INDENT = 4
_LETTERS_AROUND = 8  # quotes, comma, colon, braces


def spaced(value: Any) -> str:
    """``{"a": [1, 2]}``, as Python and most chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """``{"a":[1,2]}``"""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def indented(value: Any) -> str:
    """On lines of its own, by four blanks."""
    return json.dumps(value, ensure_ascii=False, indent=_INDENT)


def bare(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else spaced(value)


def check(prompt: Prompt) -> None:
    """What the writers of this package rely on: nothing in ``prompt`` is too deep or too large.

    :raises SecurityError: tools or arguments of calls are nested too deep or hold a number that is
        too long to print, or the whole would be more text than a prompt may have.
    """
    weight = sum(len(message.content) + len(message.thinking) for message in prompt.messages)
    allow_text(weight)
    for message in prompt.messages:
        for call in message.tool_calls:
            weight += _LETTERS_AROUND + len(call.function.name)
            weight += _weigh(call.function.arguments, TEXT_LIMIT - weight)
    _weigh(prompt.tools, TEXT_LIMIT - weight)


def _weigh(value: Any, room: int) -> int:
    """Roughly the letters that ``value`` becomes."""
    weight = 0
    left = [(value, 1)]
    while left:
        part, depth = left.pop()
        if depth > TOOL_DEPTH:
            raise SecurityError(f"more than {TOOL_DEPTH} levels of JSON")
        weight += _LETTERS_AROUND + _INDENT * depth
        if isinstance(part, str):
            weight += len(part)
        elif isinstance(part, int):
            allow_number(part.bit_length())
        inside = len(part) if isinstance(part, dict | list | tuple) else 0
        if weight + (len(left) + inside) * _LETTERS_AROUND > room:
            allow_text(TEXT_LIMIT + 1)
        if isinstance(part, dict):
            left += ((key, depth) for key in part)
            left += ((inner, depth + 1) for inner in part.values())
        elif isinstance(part, list | tuple):
            left += ((inner, depth + 1) for inner in part)
    return weight
