"""Calls written as pairs of tags: ``add<arg_key>a</arg_key><arg_value>1</arg_value>``."""

from __future__ import annotations

import re

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.bodies.xml import one_line_less
from ollama_async.prompts.parsers.tools import Tools, call_of

_TAG = re.compile(r"(</?arg_(?:key|value)>)")


def pairs(text: str, tools: Tools) -> Pieces | None:
    """A tag that the model forgot is put back where its partner tells the place."""
    name, keys, values = _read(_TAG.split(text))
    name = name.strip()
    if not name or len(keys) != len(values):
        return None
    return [
        call_of(
            name,
            {
                key.strip(): tools.value(name, key.strip(), one_line_less(value))
                for key, value in zip(keys, values, strict=True)
            },
        )
    ]


def whole_pairs(text: str, tools: Tools) -> Pieces | None:
    """As :func:`pairs`, but with every tag in its place: an answer that was cut off may lack more
    than tags.
    """
    tags = "".join(_TAG.findall(text))
    if tags.replace("<arg_key></arg_key><arg_value></arg_value>", ""):
        return None
    return pairs(text, tools)


def _read(tokens: list[str]) -> tuple[str, list[str], list[str]]:
    """Name, keys and values of a text that was split at its tags (text, tag, text, …, text)."""
    name, keys, values = tokens[0], [], []
    if tokens[1:2] == ["</arg_key>"]:
        name, _, key = name.strip().partition(" ")
        keys.append(key)
    for place in range(2, len(tokens), 2):
        before, text = tokens[place - 1], tokens[place]
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        if before == "<arg_key>" or after == "</arg_key>":
            keys.append(text)
        elif before == "<arg_value>" or after == "</arg_value>":
            values.append(text)
        else:
            name += text
    return name, keys, values
