"""Which renderer a model gets: its Jinja chat template, else the contents as they are."""

from __future__ import annotations

from ollama_async.prompts.plain import PlainRenderer
from ollama_async.prompts.port import Renderer


def choose(chat_template: str, *, bos: str, eos: str) -> Renderer:
    """``chat_template`` is Jinja or "". Nothing is compiled here, so a broken one costs no load:
    its error comes with the first request that is rendered.
    """
    if not chat_template:
        return PlainRenderer()
    # 30 ms that a model without a template does not need
    from ollama_async.prompts.jinja import JinjaRenderer  # noqa: PLC0415

    return JinjaRenderer(chat_template, bos=bos, eos=eos)
