"""Which part of a conversation goes before the model when all of it does not fit.

In this order:

1. What fits is left whole, even if only one token of the context remains for the answer.
2. Else the oldest turns are left out, then the oldest rounds of tools after the last user message:
   as few as leave the answer its reserve.
3. System messages, the last user message and the newest round stay; they may take the reserve.
4. Where these do not fit at all, the newest round is left out, too. What is then still too long is
   returned as it is, with the last user message at its end.

:mod:`.rounds` says which messages go together. Ollama leaves out one message after the other and
renders after each. Here each rest is a part of the one before, so the longest that fits is found by
bisection, which begins near a guess: long rests are dear, above all to templates that need time
with the square of the length. A history of 1,000 messages costs 4 renderings if the lengths of its
texts tell where to cut, and at most 15.

A rest that the template refuses is none. One of its neighbours stands for it, and a template that
goes on refusing ends the search; the request itself fails only if the whole cannot be rendered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.rounds import Parts, find_parts

T = TypeVar("T")

_DISTANCES = (0, 1, 16)
"""Of the first cuts that are tried from the guessed one."""

_STAND_INS = 2
"""So many neighbours of a refused rest are tried in its place."""

_REFUSALS = 6
"""In all. Templates refuse a rest for its first message, if at all, and the next begins anew."""

_MARKS = 16
"""Characters around a message, roughly."""


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
    rests = _Rests(prompt, render, length)
    whole = rests.render(0)
    if whole.length <= most:
        return whole.rendered
    parts = rests.parts
    least = rests.take(range(parts.needed, 0, -1))
    if least is None or least.length > most:
        least = rests.take(range(parts.count - 1, parts.needed, -1)) or least
    elif least.length <= wanted:
        share = Fraction(whole.length - wanted, whole.length - least.length)
        least = _find_longest(rests, least, wanted, rests.guess(least.cut, share))
    return (least or whole).rendered


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
        self._prompt = prompt
        self._render = render
        self._length = length
        self._refused: set[int] = set()

    @cached_property
    def parts(self) -> Parts:
        return find_parts(self._prompt.messages)

    @property
    def is_hopeless(self) -> bool:
        """Whether the template has refused so many that others are not worth their time."""
        return len(self._refused) >= _REFUSALS

    def render(self, cut: int) -> _Rest[T]:
        """:raises TemplateFailed: the template refuses it."""
        prompt = self._prompt
        if cut:
            messages = self.parts.rest(prompt.messages, cut)
            prompt = msgspec.structs.replace(prompt, messages=messages)
        rendered = self._render(prompt)
        return _Rest(cut, rendered, self._length(rendered))

    def take(self, cuts: Sequence[int]) -> _Rest[T] | None:
        """The first of ``cuts`` that the template takes, if it is among the first few."""
        for cut in cuts[: 1 + _STAND_INS]:
            if cut in self._refused or self.is_hopeless:
                continue
            try:
                return self.render(cut)
            except TemplateFailed:
                self._refused.add(cut)
        return None

    def guess(self, cut: int, share: Fraction) -> int:
        """The first cut that leaves out ``share`` of what ``cut`` does, going by the texts."""
        weights = [0] * self.parts.count
        for message, number in zip(self._prompt.messages, self.parts.numbers, strict=True):
            if number is not None:
                weights[number] += _weigh(message)
        left_out = list(accumulate(weights))
        return bisect_left(left_out, share * left_out[cut - 1]) + 1


def _weigh(message: Message) -> int:
    """Characters, roughly."""
    weight = _MARKS + len(message.content) + len(message.thinking)
    for call in message.tool_calls:
        values = call.function.arguments.values()
        weight += sum(len(value) for value in values if isinstance(value, str))
    return weight


def _find_longest(rests: _Rests[T], least: _Rest[T], wanted: int, guess: int) -> _Rest[T]:
    """The longest that has the length ``wanted`` at most, as ``least`` has; its cut is about
    ``guess``.
    """
    best, low, high = least, 1, least.cut
    distances = list(_DISTANCES)
    while low < high and not rests.is_hopeless:
        if distances and (low == 1 or high == least.cut):  # all so far were too short, or too long
            away = distances.pop(0) if high == least.cut else -distances.pop(0)
            cut = min(max(low, guess + away), high - 1)
        else:
            cut = (low + high) // 2
        taken = rests.take(range(cut, high))
        if taken is None:
            high = cut
        elif taken.length <= wanted:
            best, high = taken, cut
        else:
            low = taken.cut + 1
    return best
