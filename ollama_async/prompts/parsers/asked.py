"""What of a request matters for reading its answer."""

from __future__ import annotations

import msgspec

from ollama_async.conversation import Prompt
from ollama_async.prompts.parsers.tools import Tools


class Asked(msgspec.Struct, frozen=True):
    """``continues``: the last message is the beginning of the answer; ``begun`` is the text in it.
    ``rendered`` is the prompt without white space at its end.
    """

    think: bool | None
    tools: Tools
    continues: bool
    begun: str
    last_role: str
    rendered: str

    @classmethod
    def by(cls, prompt: Prompt, rendered: str) -> Asked:
        last = prompt.messages[-1] if prompt.messages else None
        continues = last is not None and last.role == "assistant"
        return cls(
            think=None if prompt.think is None else bool(prompt.think),
            tools=Tools([] if prompt.tool_choice == "none" else prompt.tools),
            continues=continues,
            begun=last.content if last and continues else "",
            last_role=last.role if last else "",
            rendered=rendered.rstrip(),
        )
