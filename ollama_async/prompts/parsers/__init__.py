"""Parsers: they split a model's answer into content, thoughts and tool calls while it arrives.

- :func:`named`: the built-in formats that a model's configuration names
  (``model_families``, ``message_formats``)
- :func:`detected`: the format whose delimiters are in a model's own chat template
  (``template_formats``)
- :func:`of_jinja`: the same for Jinja templates, which may leave calls to us
- :func:`of_go_template`: the format that tags found in a Go template describe

Most formats are rows of data: a :class:`.ParserSpec` (``parser_spec``) of one
:class:`.ThinkingSpec` (``thinking``) and several :class:`.CallSpec`. It becomes a table of
``states``, through which the ``scanner`` reads an answer. The text between the delimiters of a call
is parsed by its call syntax: ``json_calls``, ``xml_calls``, or one of ``family_calls``.
``delimiter_search`` finds the end of a call, whose strings may hold delimiters.
"""

from __future__ import annotations

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers.model_families import PARSERS
from ollama_async.prompts.parsers.template_formats import detected, of_go_template, of_jinja

__all__ = ["NAMES", "detected", "named", "of_go_template", "of_jinja"]

NAMES = tuple(PARSERS)
"""The built-in formats."""


def named(name: str) -> OutputFormat | None:
    """The built-in format of this name; None: there is none."""
    return PARSERS.get(name)
