"""Which messages of a conversation belong together, and in which order a cut leaves them out.

A *turn* is a user message with all that follows it, up to the next one. A *round* is one message of
a turn, an assistant message with the results of its tool calls. A result names its call by id, else
results answer the open calls in order. A result that answers no call belongs to the assistant
message before it, if there is one.

A *part* is what is left out at once: a whole turn before the last user message; then, one by one,
the rounds after that message; at the end the message itself. A round that reaches into a later
turn, because the user spoke while a tool was at work, belongs to that turn. System messages are in
no part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from ollama_async.core.conversation import ROLES, Message


class Parts(msgspec.Struct, frozen=True):
    """``numbers``: the part of each message, or None. There are ``count``, numbered in the order in
    which they are left out. ``needed``: when so many are left out, what remains is the last user
    message and the newest round.
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
    """In time that grows with the number of messages, whatever their roles and ids are."""
    rounds = list(map(_Walk(messages).find_round, range(len(messages))))
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
    """Of each round, by its first message: what comes first here is left out first. Rounds of one
    place are left out together: those of a turn before the last.
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


class _Walk:
    """Once through a conversation, from its beginning to its end."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._calls = _OpenCalls()
        self._round: int | None = None  # of the message before
        self._has_user = False

    def find_round(self, index: int) -> int | None:
        """The index of the message that begins the round of the one at ``index``, the next; None:
        that is a system message.
        """
        message = self._messages[index]
        if ROLES.get(message.role) == "system":
            return None
        if ROLES.get(message.role) == "tool":
            self._round = self._find_round_of_result(index)
            return self._round
        if message.role == "user":
            self._has_user = True
            self._calls.interrupt()
        else:
            self._calls.open(index, message)
        self._round = index
        return index

    def _find_round_of_result(self, index: int) -> int:
        answered = self._calls.answer(self._messages[index])
        if answered is not None:
            return answered
        if self._round is None or self._messages[self._round].role == "user":
            return index
        if ROLES.get(self._messages[self._round].role) == "tool" and self._has_user:
            return index
        return self._round


class _OpenCalls:
    """Calls that have no result yet, known by the index of the message that they are in."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}  # answered ones, too; ids may be used again
        self._left: dict[int, int] = {}
        self._in_order: deque[int] = deque()
        self._has_answer = False
        self._is_interrupted = False

    def interrupt(self) -> None:
        """The user speaks: unless the next message is a result, the calls are given up."""
        self._is_interrupted = True

    def open(self, index: int, message: Message) -> None:
        """An assistant message. Its calls come after those before it if none has a result yet."""
        calls = message.tool_calls
        if self._is_interrupted or (calls and self._has_answer):
            self._in_order.clear()
            self._has_answer = self._is_interrupted = False
        self._by_id.update((call.id, index) for call in calls if call.id)
        if calls:
            self._left[index] = len(calls)
            self._in_order.append(index)

    def answer(self, message: Message) -> int | None:
        """The message whose call ``message`` is a result of."""
        found = self._by_id.get(message.tool_call_id)
        if found is None:
            found = self._first_open()
        if found is not None:
            self._left[found] -= 1
            self._has_answer = True
        return found

    def _first_open(self) -> int | None:
        while self._in_order and self._left[self._in_order[0]] <= 0:
            self._in_order.popleft()
        return self._in_order[0] if self._in_order else None
