"""Which part of a conversation goes before the model when all of it does not fit.

In this order:

1. What fits is left whole, if only one token of the context remains for the answer.
2. Else the oldest turns are left out, then the oldest rounds of tools after the last user message:
   as few as leave the answer its reserve.
3. System messages, the last user message and the newest round stay even if they take the reserve.
4. Where these do not fit at all, the newest round is left out, too. What is then still too long is
   returned, for the caller to shorten; the last user message is its end.

:mod:`.rounds` says which messages go together. Ollama leaves out one message after the other and
renders after each; here each rest is a part of the one before, so the longest that fits is found by
bisection: a history of 1,000 messages costs at most 12 renderings.

A rest that the template refuses is none. The next shorter one stands for it, and a template that
goes on refusing ends the search; the request itself fails only if the whole cannot be rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from ollama_async.conversation import Prompt
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.rounds import find_parts

T = TypeVar("T")

_STAND_INS = 2
"""So many neighbours of a refused rest are tried in its place."""

_REFUSALS = 6
"""In all. Templates refuse a rest for its first message, if at all, and the next begins anew."""


def fit(
    prompt: Prompt,
    render: Callable[[Prompt], T],
    length: Callable[[T], int],
    *,
    most: int,
    wanted: int,
) -> T:
    """``render`` of as much of the conversation as is to be read.

    ``length`` is in tokens: ``most`` fit, ``wanted`` (not more) leave the answer its reserve. What
    ``render`` returns is opaque here. That a longer rest has a greater length is taken for granted.

    :raises TemplateFailed: ``render`` did, for the whole conversation.
    """
    whole = render(prompt)
    if length(whole) <= most:
        return whole
    rests = _Rests(prompt, render, length)
    parts = rests.parts
    least = rests.take(range(parts.needed, 0, -1))
    if least is None or least.length > most:
        least = rests.take(range(parts.count - 1, parts.needed, -1)) or least
    elif least.length <= wanted:
        least = _find_longest(rests, least, wanted)
    return whole if least is None else least.rendered


class _Rest(msgspec.Struct, Generic[T], frozen=True):
    """What is left of a conversation; ``cut``: without so many of its parts."""

    cut: int
    rendered: T
    length: int


class _Rests(Generic[T]):
    """Those of one conversation."""

    def __init__(
        self, prompt: Prompt, render: Callable[[Prompt], T], length: Callable[[T], int]
    ) -> None:
        self.parts = find_parts(prompt.messages)
        self._prompt = prompt
        self._render = render
        self._length = length
        self._refused: set[int] = set()

    @property
    def is_hopeless(self) -> bool:
        """Whether the template has refused so many that others are not worth their time."""
        return len(self._refused) >= _REFUSALS

    def take(self, cuts: Sequence[int]) -> _Rest[T] | None:
        """The first of ``cuts`` that the template takes, if it is among the first few."""
        for cut in cuts[: 1 + _STAND_INS]:
            if cut in self._refused or self.is_hopeless:
                continue
            messages = self.parts.rest(self._prompt.messages, cut)
            try:
                rendered = self._render(msgspec.structs.replace(self._prompt, messages=messages))
            except TemplateFailed:
                self._refused.add(cut)
            else:
                return _Rest(cut, rendered, self._length(rendered))
        return None


def _find_longest(rests: _Rests[T], least: _Rest[T], wanted: int) -> _Rest[T]:
    """The longest that has the length ``wanted`` at most, as ``least`` has."""
    best, low, high = least, 1, least.cut
    while low < high and not rests.is_hopeless:
        middle = (low + high) // 2
        taken = rests.take(range(middle, high))
        if taken is None:
            high = middle
        elif taken.length <= wanted:
            best, high = taken, middle
        else:
            low = taken.cut + 1
    return best
