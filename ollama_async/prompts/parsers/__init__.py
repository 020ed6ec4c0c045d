"""What an answer means: how models mark their thoughts and tool calls, read while they write.

- :func:`named`: the built-in formats that a model's configuration asks for by name
- :func:`detected`: the format that the text of a model's own chat template gives away
- :func:`generic`: the format that tags found in a Go template describe
"""

from __future__ import annotations

from ollama_async.prompts.port import Format

NAMES: tuple[str, ...] = ()
"""The built-in formats."""


def named(name: str) -> Format | None:
    """The built-in format of this name; None: there is none."""
    del name
    return None


def detected(template_text: str) -> Format | None:
    """The format whose marks stand in a chat template (Jinja or Go); None: it marks nothing."""
    del template_text
    return None


def generic(*, thinking: tuple[str, str] | None, tool_tag: str | None) -> Format:
    """The format of a Go template that tells only where thoughts and calls begin.

    ``thinking`` are the tags around thoughts, looked for when the client wants thoughts;
    ``tool_tag`` is what stands before the JSON of a call (``{`` or ``[``: nothing does), looked for
    when the client offers tools. None: the template has no such thing.
    """
    raise NotImplementedError
