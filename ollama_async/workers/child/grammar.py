"""Answers in a prescribed form.

For the request (intake thread)::

    constraint = grammars.constrain(inference, rendered, marks, special)   # None: nothing asked
    Work(…, constraint=constraint)

For the answer (step thread): the engine gets it with ``begin`` and chooses only tokens that it
allows; see :class:`~ollama_async.workers.child.engines.port.Constraint`. When it ``is_over``, the
answer is complete, or has failed.

Thoughts and the marks of a tool call are part of the grammar (:mod:`.grammar_text`), so nobody has
to tell the constraint where in the answer it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ollama_async.conversation import Inference
from ollama_async.prompts.port import Marks
from ollama_async.workers.child import grammar_text
from ollama_async.workers.child.engines.port import Constraint, Engine

if TYPE_CHECKING:
    from ollama_async.workers.child.grammar_matcher import Vocabulary


class Grammars:
    """Makes the constraints of one model's requests. Intake thread only.

    The library and its copy of the vocabulary are there from the first such request on: 35 ms, and
    8 µs and 300 bytes for each token. Answers go on meanwhile, requests behind this one wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._vocabulary: Vocabulary | None = None

    def constrain(
        self, inference: Inference, rendered: str, marks: Marks, special: Mapping[int, bytes]
    ) -> Constraint | None:
        """What holds the answer to ``inference`` to what the client asked for; None: nothing does.

        ``rendered`` is the text of the prompt. ``special`` is the text of control tokens.

        :raises BadRequest: it cannot be done, and why.
        """
        text = grammar_text.write(inference, rendered, marks, special)
        if text is None:
            return None
        if self._vocabulary is None:
            # what most workers never need
            from ollama_async.workers.child.grammar_matcher import Vocabulary  # noqa: PLC0415

            engine = self._engine
            self._vocabulary = Vocabulary(engine.facts.vocab_size, engine.piece, engine.is_end)
        return self._vocabulary.compile(text)
