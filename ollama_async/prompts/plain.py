"""The template of a model that has none: ``{{ .Prompt }}``, as Ollama runs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ollama_async.conversation import Message, Prompt

_SPOKEN = ("user", "assistant")


class PlainRenderer:
    """What the user and the model said, one after the other, with nothing in between.

    Ollama runs such a template once for each exchange, prints the answer after it, and joins
    neighbours of the same role by an empty line. System and tool messages have no place in it.
    """

    def render(self, prompt: Prompt) -> str:
        return "".join(_join(prompt.messages))


def _join(messages: Sequence[Message]) -> list[str]:
    spoken = [message for message in messages if message.role in _SPOKEN]
    return [
        "\n\n".join(message.content for message in turns)
        for _, turns in groupby(spoken, key=lambda message: message.role)
    ]
