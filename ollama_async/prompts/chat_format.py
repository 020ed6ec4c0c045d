"""Which chat format a model uses: the renderer of its prompts and the parser of its answers.

:func:`select` follows Ollama's rules; it only reads texts, so the store uses it as well.
:func:`choose` makes the chat format in the worker.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import msgspec

from ollama_async.core.conversation import ChatFormatSpec, Prompt
from ollama_async.core.errors import LoadFailed, TemplateFailed
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.go_renderer import GoRenderer, TemplateSummary, summarize
from ollama_async.prompts.output_format import Delimiters, OutputFormat, Parser, Renderer


def choose(
    spec: ChatFormatSpec, *, chat_template: str, bos: str, eos: str, prefers_go: bool | None = None
) -> ChatFormat:
    """The chat format that :func:`select` chooses for ``spec`` and ``chat_template`` (Jinja or "").

    Go templates are parsed here, which may take long for a hostile one. Jinja templates are
    compiled with the first request. ``prefers_go``: ``OLLAMA_GO_TEMPLATE``, None where it is unset.

    :raises LoadFailed: ``spec`` names a renderer that does not exist.
    :raises TemplateFailed: its Go template cannot be parsed, with Go's text.
    """
    selection = select(spec, chat_template, prefers_go=prefers_go)
    renderer = _renderer(selection, spec, chat_template, bos, eos)
    return ChatFormat(renderer, _format(selection, spec, chat_template))


def _renderer(
    selection: Selection, spec: ChatFormatSpec, chat_template: str, bos: str, eos: str
) -> Renderer:
    if spec.request_template:
        return GoRenderer(spec.request_template)
    if selection in {"renderer", "renderer_parser"}:
        renderer = renderers.named(spec.renderer)
        if renderer is None:
            raise LoadFailed(f'unknown renderer "{spec.renderer}"')
        return renderer
    if spec.template and selection != "gguf_chat_template":
        return GoRenderer(spec.template)
    if not chat_template:
        return GoRenderer(DEFAULT_TEMPLATE)
    # 30 ms that a model without a template does not need
    from ollama_async.prompts.jinja_renderer import JinjaRenderer  # noqa: PLC0415

    return JinjaRenderer(chat_template, bos=bos, eos=eos)


def _format(selection: Selection, spec: ChatFormatSpec, chat_template: str) -> OutputFormat | None:
    """A parser that does not exist counts as none, as in Ollama."""
    named = parsers.named(format_name(selection, spec))
    if named is not None:
        return named
    if selection == "gguf_chat_template":
        return parsers.of_jinja(chat_template)
    return _of_template(spec.template)


def _of_template(template: str) -> OutputFormat | None:
    """The format by the delimiters in a Go template, unless its structure shows more."""
    if not template:
        return None
    found = go_facts(template)
    detected = parsers.detected(template)
    if (
        detected is not None
        and detected.handles_tools >= found.tools
        and detected.handles_thinking >= (found.thinking_tags is not None)
    ):
        return detected
    if not found.tools and found.thinking_tags is None:
        return None
    return parsers.of_go_template(
        thinking=found.thinking_tags, tool_tag=found.tool_tag if found.tools else None
    )


class ChatFormat(msgspec.Struct, frozen=True):
    """A renderer and an output format; without ``format`` an answer is nothing but content.

    Cheap to keep, and safe to use for many requests.
    """

    renderer: Renderer
    format: OutputFormat | None

    def render(self, prompt: Prompt) -> str:
        return self.renderer.render(prompt)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        return self.format.start(prompt, rendered) if self.format is not None else None

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        return self.format.delimiters(prompt, rendered) if self.format is not None else Delimiters()

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.format.special_tokens if self.format is not None else ()


# ----------------------------------------------------------------- selection

Selection = Literal[
    "renderer_parser", "renderer", "parser", "harmony", "go_template", "gguf_chat_template", "none"
]
"""Ollama's names for what is used, as in its log."""

DEFAULT_TEMPLATE = "{{ .Prompt }}"
"""Ollama's Go template for models without any: the texts with nothing between them."""

HARMONY_FAMILIES = ("gptoss", "gpt-oss")
_HARMONY_TAGS = ("<|start|>", "<|end|>")

_SHOWS_CALLS = ("tool_calls", "assistant_tool_call")
_SHOWS_RESULTS = re.compile(
    r"""tool_response|tool_results|ipython|role['"]\]\s*==\s*['"]tool['"]"""
    r"""|message\.role\s*==\s*['"]tool['"]"""
)
_SPLITS_AT_THOUGHTS = re.compile(r"""split\(\s*['"]</think>['"]""")


def select(
    spec: ChatFormatSpec, chat_template: str, *, prefers_go: bool | None = None
) -> Selection:
    """What renders and parses for ``spec``. ``chat_template``: the Jinja text in the GGUF file, or
    "".

    ``prefers_go``: ``OLLAMA_GO_TEMPLATE``; None: the better of two templates is used. A Go template
    that cannot be parsed counts as one without abilities.
    """
    if spec.renderer:
        return "renderer_parser" if spec.parser else "renderer"
    if spec.parser:
        return "parser"
    has_harmony_tags = all(tag in spec.template for tag in _HARMONY_TAGS)
    if spec.family in HARMONY_FAMILIES and has_harmony_tags:
        return "harmony"
    if not chat_template:
        return "go_template" if spec.template else "none"
    if prefers_go is None:
        prefers_go = not _is_better(chat_template, spec.template)
    return "go_template" if spec.template and prefers_go else "gguf_chat_template"


def format_name(selection: Selection, spec: ChatFormatSpec) -> str:
    """The name of the parser. Most families have one name for parser and renderer."""
    if selection == "harmony":
        return "harmony"
    return spec.renderer if selection == "renderer" else spec.parser


@lru_cache(maxsize=64)
def go_facts(template: str) -> TemplateSummary:
    """The summary of a Go template; empty if it cannot be parsed."""
    try:
        return summarize(template) if template else TemplateSummary()
    except TemplateFailed:
        return TemplateSummary()


def go_abilities(template: str) -> frozenset[str]:
    """The abilities of a Go template: ``tools``, ``insert`` and ``thinking``."""
    found = go_facts(template)
    return _true_keys(
        tools=found.tools, insert=found.insert, thinking=found.thinking_tags is not None
    )


def jinja_abilities(template: str) -> frozenset[str]:
    """The abilities of a Jinja template: ``tools`` and ``thinking``; it cannot insert. They decide
    between templates; whether the calls can be parsed is another question.
    """
    tools = "tools" in template or "tool_call" in template
    return _true_keys(tools=tools, thinking=_thinks(template))


def _true_keys(**abilities: bool) -> frozenset[str]:
    return frozenset(name for name, holds in abilities.items() if holds)


def _is_better(jinja: str, template: str) -> bool:
    """Whether the Jinja template is better: it can do more, or also shows results."""
    theirs, ours = jinja_abilities(jinja), go_abilities(template)
    they_show, we_show = _shows_results(jinja), go_facts(template).tool_round_trip
    if len(theirs) > len(ours):
        return they_show or not we_show
    return theirs == ours and "tools" in ours and they_show and not we_show


def _shows_results(jinja: str) -> bool:
    shows_calls = any(sign in jinja for sign in _SHOWS_CALLS)
    return shows_calls and _SHOWS_RESULTS.search(jinja) is not None


def _thinks(jinja: str) -> bool:
    if "<think>" in jinja and "</think>" in jinja:
        return True
    splits = _SPLITS_AT_THOUGHTS.search(jinja) is not None
    return splits and "reasoning_content" not in jinja and "<SPECIAL_12>" not in jinja
