"""How a model is spoken to: which renderer and which parser together make its dialect."""

from __future__ import annotations

import msgspec

from ollama_async.conversation import Prompt, Speech
from ollama_async.prompts.marks import marks_of
from ollama_async.prompts.plain import PlainRenderer
from ollama_async.prompts.port import Dialect, Format, Marks, Parser, Renderer


def choose(
    speech: Speech, *, chat_template: str, bos: str, eos: str, prefers_go: bool | None = None
) -> Dialect:
    """What :func:`.selection.select` says for ``speech`` and ``chat_template`` (Jinja or "").

    Nothing is compiled here, so a broken template costs no load: its error comes with the first
    request that is rendered. ``prefers_go``: ``OLLAMA_GO_TEMPLATE``, None where it is unset.

    :raises LoadFailed: ``speech`` names a renderer that does not exist.
    """
    if not chat_template:
        return _Pair(PlainRenderer(), None)
    # 30 ms that a model without a template does not need
    from ollama_async.prompts.jinja import JinjaRenderer  # noqa: PLC0415

    return _Pair(JinjaRenderer(chat_template, bos=bos, eos=eos), None)


class _Pair(msgspec.Struct, frozen=True):
    """A dialect of two halves; without ``format`` an answer is nothing but content."""

    renderer: Renderer
    format: Format | None

    def render(self, prompt: Prompt) -> str:
        return self.renderer.render(prompt)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        return self.format.start(prompt, rendered) if self.format is not None else None

    def marks(self, prompt: Prompt, rendered: str) -> Marks:
        return marks_of(self.format, prompt, rendered)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.format.special_tokens if self.format is not None else ()
