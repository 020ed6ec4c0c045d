"""Built-in renderers: prompt formats that a model's configuration names, with no template to run.

A renderer is a :class:`.RendererSpec`: what stands around each turn, and small functions for what
is inside. ``renderer_spec`` walks through the conversation, ``conversation_view`` prepares it,
``tool_texts`` holds the JSON styles and the ways to write tools and calls that families share. Each
other file holds the families that share delimiters: ``chatml`` (Qwen, Nemotron, Olmo, LFM2),
``deepseek_cohere``, ``gemma``, ``glm`` (with Laguna), ``glimmer``.

To add a family:

1. Collect the prompts (from its documentation, or by running its chat template) for: a question;
   system messages; several turns; thoughts in the history; tools; calls with results and text; the
   beginning of an answer; each of them with thinking on, off and not set.
2. Write its :class:`.RendererSpec` into the file of its delimiters. ``tags`` surround the turns of
   each role; ``opening`` is what the answer begins with; ``thought`` surrounds a thought there.
   ``system`` writes the system turn with the tools in it, ``assistant`` a turn of the model
   (:func:`.assistant_turn`), ``result`` a tool's result. Nemotron in ``chatml`` is a short example;
   a variant is ``dataclasses.replace`` of another.
3. Add the prompts to ``tests/vectors/renderers.jsonl`` and ``renderers-2.jsonl``. The other tests
   find the new name by themselves: no text of a conversation may be lost.

A function that writes must take time and give text in proportion to its input. It may recurse into
JSON (its depth is limited) and rely on the types in ``conversation_view``, but on nothing inside a
schema.
"""

from __future__ import annotations

from ollama_async.prompts.output_format import Renderer
from ollama_async.prompts.renderers import chatml, deepseek_cohere, gemma, glimmer, glm

_RENDERERS: dict[str, Renderer] = {
    **chatml.RENDERERS,
    **deepseek_cohere.RENDERERS,
    **gemma.RENDERERS,
    **glm.RENDERERS,
    **glimmer.RENDERERS,
}

NAMES = tuple(_RENDERERS)
"""What a model's configuration may name."""


def named(name: str) -> Renderer | None:
    """The renderer called ``name``; None: there is none."""
    return _RENDERERS.get(name)
