"""Built-in renderers: prompt formats that a model's configuration names, with no template to run.

A renderer is a :class:`.RendererSpec`: what stands around each turn, and small functions for what
is inside. ``renderer_spec`` walks through the conversation, ``conversation_view`` prepares it,
``tool_texts`` holds the JSON styles and the ways to write tools and calls that families share. Each
other file holds the families that share delimiters: ``chatml`` (Qwen, Nemotron, Olmo, LFM2),
``deepseek_cohere``, ``gemma``, ``glm`` (with Laguna), ``glimmer``.

To add a family:

1. Collect (from its documentation, or by running its chat template) the prompts for: a question;
   with a system message; with two; several turns; thoughts in the history; tools; a call with its
   result; two calls with words and thoughts; the beginning of an answer; each of them with thinking
   on, off and not asked for.
2. Write its :class:`.RendererSpec` into the file of its delimiters, or into a file of its own with
   the table ``RENDERERS``. ``tags`` surround a turn of each role; ``opening`` is what the answer
   begins with if the model is to think and if not; ``thought`` surrounds a thought there.
   ``system`` writes the system turn with the tools in it, ``assistant`` a turn of the model
   (:func:`.assistant_turn` puts thoughts, words and calls together), ``result`` a tool's result.
   Nemotron in ``chatml`` is a short example; a variant is ``dataclasses.replace`` of another.
3. Add its ``RENDERERS`` to the table here, and the prompts of step 1 to
   ``tests/vectors/renderers.jsonl`` and ``renderers-2.jsonl``. The other tests find the new name by
   themselves: whatever the shape of a conversation, none of its texts may be lost.

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
