"""How a model is spoken to: which renderer and which parser together make its dialect."""

from __future__ import annotations

import msgspec

from ollama_async.core.conversation import ChatFormatSpec, Prompt
from ollama_async.core.errors import LoadFailed
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.output_format import (
    ChatFormat,
    Delimiters,
    OutputFormat,
    Parser,
    Renderer,
)
from ollama_async.prompts.selection import (
    DEFAULT_TEMPLATE,
    Selection,
    format_name,
    go_facts,
    select,
)


def choose(
    spec: ChatFormatSpec, *, chat_template: str, bos: str, eos: str, prefers_go: bool | None = None
) -> ChatFormat:
    """What :func:`.selection.select` says for ``spec`` and ``chat_template`` (Jinja or "").

    Go templates are parsed here, which takes as long as a hostile one makes it; Jinja is compiled
    with the first request. ``prefers_go``: ``OLLAMA_GO_TEMPLATE``, None where it is unset.

    :raises LoadFailed: ``spec`` names a renderer that does not exist.
    :raises TemplateFailed: its Go template is none, in Go's words.
    """
    selection = select(spec, chat_template, prefers_go=prefers_go)
    renderer = _renderer(selection, spec, chat_template, bos, eos)
    return _Pair(renderer, _format(selection, spec, chat_template))


def _renderer(
    selection: Selection, spec: ChatFormatSpec, chat_template: str, bos: str, eos: str
) -> Renderer:
    if spec.request_template:
        return GoRenderer(spec.request_template)
    if selection in {"renderer", "renderer_parser"}:
        return _named(spec.renderer)
    if spec.template and selection != "gguf_chat_template":
        return GoRenderer(spec.template)
    if not chat_template:
        return GoRenderer(DEFAULT_TEMPLATE)
    # 30 ms that a model without a template does not need
    from ollama_async.prompts.jinja_renderer import JinjaRenderer  # noqa: PLC0415

    return JinjaRenderer(chat_template, bos=bos, eos=eos)


def _named(name: str) -> Renderer:
    renderer = renderers.named(name)
    if renderer is None:
        raise LoadFailed(f'unknown renderer "{name}"')
    return renderer


def _format(selection: Selection, spec: ChatFormatSpec, chat_template: str) -> OutputFormat | None:
    """A parser that does not exist counts as none, as in Ollama."""
    named = parsers.named(format_name(selection, spec))
    if named is not None:
        return named
    if selection == "gguf_chat_template":
        return parsers.of_jinja(chat_template)
    return _of_template(spec.template)


def _of_template(template: str) -> OutputFormat | None:
    """The format whose marks a Go template shows, unless its structure says more."""
    if not template:
        return None
    found = go_facts(template)
    marked = parsers.detected(template)
    if (
        marked is not None
        and marked.handles_tools >= found.tools
        and marked.handles_thinking >= (found.thinking_tags is not None)
    ):
        return marked
    if not found.tools and found.thinking_tags is None:
        return None
    return parsers.of_go_template(
        thinking=found.thinking_tags, tool_tag=found.tool_tag if found.tools else None
    )


class _Pair(msgspec.Struct, frozen=True):
    """A dialect of two halves; without ``format`` an answer is nothing but content."""

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
