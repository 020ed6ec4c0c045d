"""Which part of a conversation goes before the model when all of it does not fit.

System messages stay, the oldest turns go. A cut is made before a user's message if one fits; only
inside the last turn (an agent at work) also before an assistant's. It never separates a tool's
result from the call that it answers, and the last message always stays. Ollama drops one message
after the other and renders after each; here the longest fitting rest is found by bisection, so a
history of 1,000 messages costs at most 11 renderings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ollama_async.conversation import Message, Prompt

T = TypeVar("T")

_RESULTS = ("tool", "function", "ipython")


def fit(prompt: Prompt, count: Callable[[Prompt], T], fits: Callable[[T], bool]) -> T:
    """``count`` of the longest rest of the conversation that ``fits``, else of the shortest rest.

    ``count`` renders and tokenizes; what it returns is opaque here. That a longer rest counts
    more is taken for granted. Errors of ``count`` pass through.
    """
    whole = count(prompt)
    cuts = _find_cuts(prompt.messages)
    if fits(whole) or not cuts:
        return whole
    best: T | None = None  # count at cuts[high], once known
    low, high = 0, len(cuts) - 1
    while low < high:
        middle = (low + high) // 2
        candidate = count(_cut(prompt, cuts[middle]))
        if fits(candidate):
            best, high = candidate, middle
        else:
            low = middle + 1
    return count(_cut(prompt, cuts[high])) if best is None else best


def _find_cuts(messages: Sequence[Message]) -> list[int]:
    """Indices, ascending, at which the kept rest may begin; not where nothing would be dropped."""
    starts = [
        index
        for index, message in enumerate(messages)
        if message.role != "system" and message.role not in _RESULTS
    ]
    spoken = [index for index, message in enumerate(messages) if message.role != "system"]
    users = [index for index in starts if messages[index].role == "user"]
    last_user = users[-1] if users else -1
    first = spoken[0] if spoken else 0
    cuts = users + [index for index in starts if index > last_user]
    return [index for index in cuts if index > first]


def _cut(prompt: Prompt, start: int) -> Prompt:
    messages = prompt.messages
    kept = [message for message in messages[:start] if message.role == "system"]
    return msgspec.structs.replace(prompt, messages=kept + messages[start:])
