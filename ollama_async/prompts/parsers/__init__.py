"""What an answer means: how models mark their thoughts and tool calls, read while they write.

- :func:`named`: the built-in formats that a model's configuration asks for by name
- :func:`detected`: the format that the text of a model's own chat template gives away
- :func:`generic`: the format that tags found in a Go template describe
"""

from __future__ import annotations

from ollama_async.prompts.parsers.families import FAMILIES
from ollama_async.prompts.port import Format

NAMES = tuple(FAMILIES)
"""The built-in formats."""


def named(name: str) -> Format | None:
    """The built-in format of this name; None: there is none."""
    return FAMILIES.get(name)
