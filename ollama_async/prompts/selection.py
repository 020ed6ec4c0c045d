"""Which of a model's templates is in force, by Ollama's rules. Text is looked at, nothing is run.

Both halves of the server ask: the worker to render, the store to say what a model can do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_template import TemplateSummary, summarize

Selection = Literal[
    "renderer_parser",
    "renderer",
    "parser",
    "harmony",
    "go_template",
    "gguf_chat_template",
    "none",
]
"""Ollama's words, as its log has them."""

DEFAULT_TEMPLATE = "{{ .Prompt }}"
"""Ollama's Go template for models without any: nothing stands between what was said."""

HARMONY_FAMILIES = ("gptoss", "gpt-oss")
_HARMONY_MARKS = ("<|start|>", "<|end|>")
_NO_FACTS = TemplateSummary()

_SHOWS_CALLS = ("tool_calls", "assistant_tool_call")
_SHOWS_RESULTS = re.compile(
    r"""tool_response|tool_results|ipython|role['"]\]\s*==\s*['"]tool['"]"""
    r"""|message\.role\s*==\s*['"]tool['"]"""
)
_SPLITS_AT_THOUGHTS = re.compile(r"""split\(\s*['"]</think>['"]""")


def select(
    spec: ChatFormatSpec, chat_template: str, *, prefers_go: bool | None = None
) -> Selection:
    """``chat_template``: the Jinja text in the model's file, or "".

    ``prefers_go``: ``OLLAMA_GO_TEMPLATE``; None: the better of two templates is taken. A Go
    template that is none counts as one that can do nothing.
    """
    if spec.renderer:
        return "renderer_parser" if spec.parser else "renderer"
    if spec.parser:
        return "parser"
    if _is_harmony(spec):
        return "harmony"
    if spec.template and _prefers_go(spec.template, chat_template, prefers_go):
        return "go_template"
    return "gguf_chat_template" if chat_template else "none"


def format_name(selection: Selection, spec: ChatFormatSpec) -> str:
    """The parser that is asked for: most families have one name for it and for the renderer."""
    if selection == "harmony":
        return "harmony"
    return spec.renderer if selection == "renderer" else spec.parser


def _is_harmony(spec: ChatFormatSpec) -> bool:
    """Whether this is gpt-oss with its own kind of template."""
    is_family = spec.family in HARMONY_FAMILIES
    return is_family and all(mark in spec.template for mark in _HARMONY_MARKS)


def go_facts(template: str) -> TemplateSummary:
    """What a Go template says; nothing, if it is none."""
    try:
        return _facts(template) if template else _NO_FACTS
    except TemplateFailed:
        return _NO_FACTS


def go_abilities(template: str) -> frozenset[str]:
    """Of ``tools``, ``insert`` and ``thinking``."""
    found = go_facts(template)
    abilities = {
        "tools": found.tools,
        "insert": found.insert,
        "thinking": found.thinking_tags is not None,
    }
    return frozenset(word for word, holds in abilities.items() if holds)


def jinja_abilities(template: str) -> frozenset[str]:
    """Of ``tools`` and ``thinking``; a Jinja template cannot fill a hole. This is what decides
    between templates; whether the calls can be read is another question.
    """
    abilities = {
        "tools": "tools" in template or "tool_call" in template,
        "thinking": _thinks(template),
    }
    return frozenset(word for word, holds in abilities.items() if holds)


def _prefers_go(template: str, jinja: str, wish: bool | None) -> bool:
    if not jinja:
        return True
    return not _is_better(jinja, template) if wish is None else wish


def _is_better(jinja: str, template: str) -> bool:
    """Whether the Jinja template says more: it can do more, or also show what tools answered."""
    theirs, ours = jinja_abilities(jinja), go_abilities(template)
    they_show, we_show = _shows_results(jinja), go_facts(template).tool_round_trip
    if len(theirs) > len(ours):
        return they_show or not we_show
    return theirs == ours and "tools" in ours and they_show and not we_show


def _shows_results(jinja: str) -> bool:
    shows_calls = any(mark in jinja for mark in _SHOWS_CALLS)
    return shows_calls and _SHOWS_RESULTS.search(jinja) is not None


def _thinks(jinja: str) -> bool:
    if "<think>" in jinja and "</think>" in jinja:
        return True
    splits = _SPLITS_AT_THOUGHTS.search(jinja) is not None
    return splits and "reasoning_content" not in jinja and "<SPECIAL_12>" not in jinja


_facts = lru_cache(maxsize=64)(summarize)
