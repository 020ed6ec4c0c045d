"""The one interface between a conversation and the text that a model reads.

Renderers are files beside this one; more kinds (Go templates, built-in formats) join by having the
same method. They only turn data into text: they read no files and know no tokenizer.
"""

from __future__ import annotations

from typing import Protocol

from ollama_async.conversation import Prompt


class Renderer(Protocol):
    def render(self, prompt: Prompt) -> str:
        """The text of ``prompt.messages`` (``prompt.raw`` is None), ready for the answer to begin.

        The text may begin with a BOS as text. A renderer that runs what came with a model keeps
        its memory within limits by itself; its time is the caller's to bound.

        :raises TemplateFailed: the model's template cannot render these messages, and why.
        """
