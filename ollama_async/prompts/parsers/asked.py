"""What of a request matters for reading its answer."""

from __future__ import annotations

import msgspec

from ollama_async.core.conversation import Message, Prompt
from ollama_async.prompts.parsers.tool_schemas import Tools


class Asked(msgspec.Struct, frozen=True):
    """``continues``: the last message is the beginning of the answer. ``begun`` is its content if
    the prompt ends with that; ``is_in_thought``: the prompt ends with its thought instead.
    ``rendered`` is the prompt without white space at its end.
    """

    think: bool | None
    tools: Tools
    continues: bool
    begun: str
    is_in_thought: bool
    last_role: str
    rendered: str

    @classmethod
    def by(cls, prompt: Prompt, rendered: str) -> Asked:
        last = prompt.messages[-1] if prompt.messages else None
        begun = last if last and last.role == "assistant" else None
        text = rendered.rstrip()
        return cls(
            think=None if prompt.think is None else bool(prompt.think),
            tools=Tools([] if prompt.tool_choice == "none" else prompt.tools),
            continues=begun is not None,
            begun=begun.content if begun and text.endswith(begun.content.strip()) else "",
            is_in_thought=begun is not None and _ends_in_thought(begun, text),
            last_role=last.role if last else "",
            rendered=text,
        )


def _ends_in_thought(begun: Message, text: str) -> bool:
    thought = begun.thinking.strip()
    return not begun.content and bool(thought) and text.endswith(thought)
