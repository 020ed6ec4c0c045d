"""Built-in renderers: chat formats that a model's configuration names, with no template to run.

A renderer is a :class:`~.family.Family`: a table of what stands around each turn, and small
functions for what is inside. ``family.py`` walks through the conversation, ``talk.py`` prepares it,
``tools.py`` and ``chatml.py`` hold what several families write the same way, ``json_text.py`` the
styles of JSON and the limits. Each other file is one family of models.

Adding a family:

1. Write down (from its documentation, or by running its chat template) the prompts for: a question;
   with a system message; with two; several turns; thoughts in the history; tools; a call with its
   result; two calls with words and thoughts; the beginning of an answer; each of them with thinking
   on, off and not asked for.
2. Write a file with ``FAMILIES``, a table of names. In each :class:`~.family.Family`, ``marks`` is
   what surrounds a turn of each role, ``opening`` what the answer begins with if the model is to
   think and if not, ``thought`` what surrounds a thought there; ``system`` writes the system turn
   with the tools in it, ``assistant`` a turn of the model (:func:`~.family.speaking` puts thoughts,
   words and calls together), ``result`` what a tool answered.
   ``nemotron.py`` is a short one to begin with; a variant is ``dataclasses.replace`` of another.
3. Add its ``FAMILIES`` to the table here, and the prompts of step 1 to
   ``tests/vectors/renderers.jsonl`` and ``renderers-2.jsonl``. The other tests find the new name by
   themselves: whatever the shape of a conversation, none of its texts may be lost.

A function that writes must take time and give text in proportion to its input. It may recurse into
JSON (its depth is limited) and rely on the types in ``talk.py``, but on nothing inside a schema.
"""

from __future__ import annotations

from ollama_async.prompts.output_format import Renderer
from ollama_async.prompts.renderers import (
    cohere,
    deepseek,
    gemma,
    glimmer,
    glm,
    laguna,
    lfm2,
    nemotron,
    olmo,
    qwen,
)

_RENDERERS: dict[str, Renderer] = {
    **qwen.FAMILIES,
    **deepseek.FAMILIES,
    **olmo.FAMILIES,
    **nemotron.FAMILIES,
    **gemma.FAMILIES,
    **glm.FAMILIES,
    **lfm2.FAMILIES,
    **laguna.FAMILIES,
    **cohere.FAMILIES,
    **glimmer.FAMILIES,
}

NAMES = tuple(_RENDERERS)
"""What a model's configuration may name."""


def named(name: str) -> Renderer | None:
    """The renderer called ``name``; None: there is none."""
    return _RENDERERS.get(name)
