"""Thoughts that some clients leave in what they send back as the assistant's turns."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ollama_async.core.conversation import Message

_OPEN, _CLOSE = "<think>", "</think>"


def strip_thinking(messages: Sequence[Message]) -> list[Message]:
    """The turns, the assistant's before the last question without ``<think>…</think>`` in them."""
    last_user = max(
        (index for index, message in enumerate(messages) if message.role == "user"), default=0
    )
    return [
        msgspec.structs.replace(message, content=_without_thoughts(message.content))
        if index < last_user and message.role == "assistant"
        else message
        for index, message in enumerate(messages)
    ]


def _without_thoughts(text: str) -> str:
    """One pass: thoughts without an end stay, and are looked for once."""
    kept: list[str] = []
    position = 0
    while (begin := text.find(_OPEN, position)) >= 0:
        end = text.find(_CLOSE, begin)
        if end < 0:
            break
        kept.append(text[position:begin])
        position = end + len(_CLOSE)
        while text.startswith("\n", position):
            position += 1
    return "".join(kept) + text[position:]
