"""What an answer means: how models mark their thoughts and tool calls, read while they write.

- :func:`named`: the built-in formats that a model's configuration asks for by name
- :func:`detected`: the format that the text of a model's own chat template gives away
- :func:`of_jinja`: the same for Jinja templates, which may leave calls to us
- :func:`generic`: the format that tags found in a Go template describe

A format becomes a table of ``states``, which the ``scanner`` reads an answer through. Most formats
are a row of data (``families``, ``formats``, ``tagged``), made of ``thoughts`` and ``calls`` and
turned into states by ``family``; what stands between the marks of a call is read by one of
``bodies``, and ``strings`` tells a mark in a value from the end of the call. Answers that are rows
of messages have a file each (``harmony``, ``glimmer``, ``cohere``).
"""

from __future__ import annotations

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers import detection, template_formats
from ollama_async.prompts.parsers.model_families import FAMILIES

NAMES = tuple(FAMILIES)
"""The built-in formats."""


def named(name: str) -> OutputFormat | None:
    """The built-in format of this name; None: there is none."""
    return FAMILIES.get(name)


def detected(template_text: str) -> OutputFormat | None:
    """The format whose marks stand in a chat template (Jinja or Go); None: it marks nothing.

    Its thoughts are told from content whatever the client wants, and whether an answer begins
    with them is read from the end of the rendered prompt.
    """
    return detection.detected(template_text)


def of_jinja(template_text: str) -> OutputFormat | None:
    """As :func:`detected`, for a Jinja template. One that shows tools but has no words for calls
    gets them as JSON (:mod:`ollama_async.prompts.template_probe`), and so they are read.
    """
    return detection.of_jinja(template_text)


def generic(*, thinking: tuple[str, str] | None, tool_tag: str | None) -> OutputFormat:
    """The format of a Go template that tells only where thoughts and calls begin.

    ``thinking`` are the tags around thoughts, looked for when the client wants thoughts;
    ``tool_tag`` is what stands before the JSON of a call (``{`` or ``[``: nothing does), looked for
    when the client offers tools; only those tools are recognised. None: there is no such thing.
    """
    return template_formats.of_go_template(thinking, tool_tag)
