"""How a prompt begins whatever its client says: with what the model itself brings.

That is the template's own words, the model's system prompt and its turns. They are found as what
two prompts have in common in which only the first character of the question differs. No client's
text goes into these, so whoever learns that a prompt begins like them learns nothing of its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.workers.child.prefix import shared_length

_QUESTIONS = ("0", "A")
_KEPT = 64
_KEPT_TOKENS = 1 << 20

_pack = msgspec.msgpack.Encoder().encode


class OwnPrefixes:
    """Those of one worker's models: names of one file may bring different texts. Any thread."""

    def __init__(self) -> None:
        self._kept: BoundedCache[bytes, list[int]] = BoundedCache(_KEPT, _KEPT_TOKENS)

    def kept(self, prompt: Prompt) -> list[int] | None:
        """Tokens; None: they are not known yet."""
        return self._kept.get(_key(prompt))

    def find(self, prompt: Prompt, encode: Callable[[Prompt], list[int]]) -> list[int]:
        """The same with certainty; ``encode`` renders and tokenizes a conversation."""
        tokens = self.kept(prompt)
        if tokens is None:
            try:
                one, other = (encode(_with_question(prompt, text)) for text in _QUESTIONS)
            except TemplateFailed:  # it takes no plain question: nothing is known to be its own
                one = other = []
            tokens = one[: shared_length(one, other)]
            self._kept.put(_key(prompt), tokens, 1 + len(tokens))
        return tokens


def _with_question(prompt: Prompt, text: str) -> Prompt:
    messages = [*prompt.messages[: prompt.own], Message("user", text)]
    return Prompt(messages=messages, think=prompt.think, chat_format=prompt.chat_format)


def _key(prompt: Prompt) -> bytes:
    """Of everything that the tokens depend on; many templates show the day."""
    day = datetime.now().astimezone().toordinal()
    own = prompt.messages[: prompt.own]
    return hashlib.sha256(_pack((prompt.chat_format, own, prompt.think, day))).digest()
