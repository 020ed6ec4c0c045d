"""Truncates a conversation that is longer than the context.

1. A conversation that fits stays whole, even if only one token is left for the answer.
2. Otherwise the oldest turns are left out, then the oldest rounds of tools after the last user
   message: as few as leave the answer its reserve.
3. System messages, the last user message and the newest round stay; they may take the reserve.
4. If these do not fit either, the newest round is left out as well. What is then still too long is
   returned as it is, with the last user message at its end.

A *turn* is a user message with all that follows it, up to the next one. A *round* is an assistant
message of a turn with the results of its tool calls. A result names its call by id; otherwise
results answer the open calls in order. A result without a call belongs to the assistant message
before it, if there is one. A round that reaches into a later turn belongs to that turn.

A *part* is what is left out at once: a whole turn before the last user message; then, one by one,
the rounds after that message; at the end the message itself. System messages are in no part.

Each rest is contained in the one before, so bisection finds the longest that fits. It begins near a
guess, because rendering long rests is expensive: a history of 1,000 messages costs 4 renderings if
the lengths of its texts predict the cut, and at most 15. If the template refuses a rest, a
neighbour is tried in its place; a template that keeps refusing ends the search.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec

from ollama_async.core.conversation import ROLES, Message, Prompt
from ollama_async.core.errors import TemplateFailed

T = TypeVar("T")

_DISTANCES = (0, 1, 16)
"""The distances of the first cuts from the guessed one."""

_STAND_INS = 2
"""Neighbours of a refused rest that are tried in its place."""

_REFUSALS = 6
"""Refusals that end the search. A template refuses a rest for its first message, if at all."""

_AROUND = 16
"""Rough number of characters around a message."""

_IMAGE = 2000
"""Of text that takes as many tokens as an image."""


def truncate(
    prompt: Prompt,
    render: Callable[[Prompt], T],
    length: Callable[[T], int],
    *,
    most: int,
    target: int,
) -> T:
    """``render`` of as much of the conversation as fits.

    Lengths are in tokens: ``most`` fit the context, ``target`` (not more) leave the answer its
    reserve. The result of ``render`` is opaque here. A longer rest is assumed to have a greater
    length.

    :raises TemplateFailed: ``render`` raised it for the whole conversation.
    """
    rests = _Rests(prompt, render, length)
    whole = rests.render(0)
    if whole.length <= most:
        return whole.rendered
    parts = rests.parts
    least = rests.take(range(parts.needed, 0, -1))
    if least is None or least.length > most:
        least = rests.take(range(parts.count - 1, parts.needed, -1)) or least
    elif least.length <= target:
        share = Fraction(whole.length - target, whole.length - least.length)
        least = _find_longest(rests, least, target, rests.guess(least.cut, share))
    return (least or whole).rendered


class _Rest(msgspec.Struct, Generic[T], frozen=True):
    """The rest of a conversation without its first ``cut`` parts."""

    cut: int
    rendered: T
    length: int


class _Rests(Generic[T]):
    """The rests of one conversation."""

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
        """Whether the template has refused too many rests to try others."""
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
        """The rest of the first of ``cuts`` that the template accepts, among the first few."""
        for cut in cuts[: 1 + _STAND_INS]:
            if cut in self._refused or self.is_hopeless:
                continue
            try:
                return self.render(cut)
            except TemplateFailed:
                self._refused.add(cut)
        return None

    def guess(self, cut: int, share: Fraction) -> int:
        """The first cut that leaves out ``share`` of what ``cut`` does, estimated by the texts."""
        weights = [0] * self.parts.count
        for message, number in zip(self._prompt.messages, self.parts.numbers, strict=True):
            if number is not None:
                weights[number] += _weigh(message)
        left_out = list(accumulate(weights))
        return bisect_left(left_out, share * left_out[cut - 1]) + 1


def _weigh(message: Message) -> int:
    """The rough number of characters."""
    weight = _AROUND + len(message.content) + len(message.thinking)
    weight += _IMAGE * len(message.images)
    for call in message.tool_calls:
        values = call.function.arguments.values()
        weight += sum(len(value) for value in values if isinstance(value, str))
    return weight


def _find_longest(rests: _Rests[T], least: _Rest[T], target: int, guess: int) -> _Rest[T]:
    """The longest rest with a length of at most ``target``, as ``least`` has. Its cut is about
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
        elif taken.length <= target:
            best, high = taken, cut
        else:
            low = taken.cut + 1
    return best


# ----------------------------------------------------------------- rounds


class Parts(msgspec.Struct, frozen=True):
    """The parts of a conversation. ``numbers``: the part of each message, or None. There are
    ``count`` parts, numbered in the order in which they are left out. Without the first ``needed``
    parts, the last user message and the newest round remain.
    """

    numbers: list[int | None]
    count: int
    needed: int

    def rest(self, messages: Sequence[Message], cut: int) -> list[Message]:
        """``messages`` without the first ``cut`` parts."""
        return [
            message
            for message, number in zip(messages, self.numbers, strict=True)
            if number is None or number >= cut
        ]


def find_parts(messages: Sequence[Message]) -> Parts:
    """Takes time in proportion to the number of messages, whatever their roles and ids are."""
    rounds = _find_rounds(messages)
    places = _find_places(messages, rounds)
    order = sorted(set(places.values()))
    numbers = {place: number for number, place in enumerate(order)}
    # turns are counted from 1, and the last user message is left out after all of its turn
    goes_on_after_user = len(order) > 1 and order[-2][0] == order[-1][0] > 0
    return Parts(
        numbers=[None if first is None else numbers[places[first]] for first in rounds],
        count=len(order),
        needed=max(0, len(order) - 1 - goes_on_after_user),
    )


def _find_places(
    messages: Sequence[Message], rounds: Sequence[int | None]
) -> dict[int, tuple[int, int]]:
    """The place of each round in the order of leaving out, by the round's first message. Rounds of
    a turn before the last share one place and are left out together.
    """
    ends = {first: index for index, first in enumerate(rounds) if first is not None}
    turns = list(accumulate(int(message.role == "user") for message in messages))
    places = {}
    for first, end in ends.items():
        place = 0
        if turns[end] == turns[-1]:
            place = len(messages) if messages[first].role == "user" else end
        places[first] = turns[end], place
    return places


def _find_rounds(messages: Sequence[Message]) -> list[int | None]:
    """The index of the first message of each message's round; None for system messages."""
    calls = _OpenCalls()
    rounds: list[int | None] = []
    current: int | None = None  # the round of the message before
    has_user = False
    for index, message in enumerate(messages):
        role = ROLES.get(message.role)
        if role == "system":
            rounds.append(None)
            continue
        if role == "tool":
            before = "user" if current is None else messages[current].role
            is_first = before == "user" or (ROLES.get(before) == "tool" and has_user)
            answered = calls.answer(message)
            current = answered if answered is not None else index if is_first else current
        else:
            has_user |= message.role == "user"
            if message.role == "user":
                calls.interrupt()
            else:
                calls.open(index, message)
            current = index
        rounds.append(current)
    return rounds


class _OpenCalls:
    """Calls without a result, by the index of their message."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}  # answered ones, too; ids may be used again
        self._left: dict[int, int] = {}
        self._in_order: deque[int] = deque()
        self._has_answer = False
        self._is_interrupted = False

    def interrupt(self) -> None:
        """A message of the user: unless the next one is a result, the open calls are abandoned."""
        self._is_interrupted = True

    def open(self, index: int, message: Message) -> None:
        """An assistant message. Its calls queue after earlier ones if none of these has a result
        yet.
        """
        calls = message.tool_calls
        if self._is_interrupted or (calls and self._has_answer):
            self._in_order.clear()
            self._has_answer = self._is_interrupted = False
        self._by_id.update((call.id, index) for call in calls if call.id)
        if calls:
            self._left[index] = len(calls)
            self._in_order.append(index)

    def answer(self, message: Message) -> int | None:
        """The message with the call that ``message`` answers."""
        found = self._by_id.get(message.tool_call_id)
        if found is None:
            while self._in_order and self._left[self._in_order[0]] <= 0:
                self._in_order.popleft()
            found = self._in_order[0] if self._in_order else None
        if found is not None:
            self._left[found] -= 1
            self._has_answer = True
        return found


# ----------------------------------------------------------------- raw prompts


def cut_middle(tokens: Sequence[int], *, num_ctx: int, keep: int) -> list[int]:
    """The first ``keep`` tokens, and as many of the last as leave half of the rest free.

    This is Ollama's rule: the result has ``num_ctx - max((num_ctx - keep) // 2, 1)`` tokens.
    A negative ``keep`` means all, and at least two tokens of the context are never kept, so that
    the end of the prompt always has a place. ``num_ctx`` is at least 3; ``tokens`` are longer.
    """
    keep = min(keep if keep >= 0 else num_ctx, num_ctx - 2)
    length = num_ctx - max((num_ctx - keep) // 2, 1)
    return [*tokens[:keep], *tokens[len(tokens) - (length - keep) :]]
