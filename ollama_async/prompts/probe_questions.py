"""What a chat template is asked about conversations, and the small ones that it is asked with.

A question names what some template refuses or drops, the conversations in which that matters, and
the shapes (:mod:`.message_shapes`) that help. :class:`.TemplateProbe` asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from ollama_async.core.conversation import Message, ToolCall, ToolFunction
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.message_shapes import Messages, Reshape


class Question(msgspec.Struct, frozen=True):
    """``is_raised``: by a conversation in which the answer matters. ``shapes``: what can be done,
    the least first. ``examples``: what must be shown whole in the shape that is chosen, with its
    thoughts if ``thoughts`` is set and any shape shows them. ``opens``: it must be the assistant's
    turn at their end. ``orders``: what is asked is only whether texts are in their order; what is
    missing is another question's.
    """

    name: str
    is_raised: Callable[[Messages], bool]
    shapes: tuple[Reshape, ...]
    examples: tuple[Messages, ...]
    thoughts: bool = False
    opens: bool = False
    orders: bool = False


# ----------------------------------------------------------------- examples

_NAME, _PLACE = "look_up_tide", "Nordstrand"
_THOUGHT = "moonshine"


def example_tool() -> dict[str, Any]:
    place = {"type": "string", "description": "a place"}
    return {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "the tide",
            "parameters": {"type": "object", "properties": {"place": place}, "required": ["place"]},
        },
    }


EXAMPLE_QUESTION = Message("user", "fine words")
"""What every template takes, if it works at all."""
EXAMPLE_BEGINNING = Message("assistant", "rising water: \n")
"""Of an answer."""

_ASK = EXAMPLE_QUESTION
_SYSTEM, _MORE = Message("system", "stormy rules"), Message("system", "calmer rules")
_WHY, _ON = Message("user", "more words"), Message("user", "last words")
_SAYS, _ADDS = (Message("assistant", text) for text in ("rising water", "falling water"))
_NOTHING = Message("assistant")


def _calling(*places: str, content: str = "", thinking: str = "") -> Message:
    calls = [ToolCall(ToolFunction(_NAME, {"place": place}), id=_id(place)) for place in places]
    return Message("assistant", content, thinking=thinking, tool_calls=calls)


def _answering(place: str, text: str) -> Message:
    return Message("tool", text, tool_name=_NAME, tool_call_id=_id(place))


def _id(place: str) -> str:
    return f"call_{place.lower()[:8]:_<8}"


_CALL, _RESULT = _calling(_PLACE), _answering(_PLACE, "high tide")
EXAMPLE_CALL = (_ASK, _CALL, _RESULT)
_WORDY_CALL = _calling(_PLACE, content="hold on")
_FULL_CALL = _calling(_PLACE, content="hold on", thinking=_THOUGHT)
_HIGH, _LOW, _NO = (Message("tool", f"{kind} tide") for kind in ("high", "low", "no"))
_TWO_CALLS = _calling(_PLACE, "Helgoland")
_TWO_RESULTS = [_RESULT, _answering("Helgoland", "low tide")]


# ----------------------------------------------------------------- what raises a question


def _has_later_system(messages: Messages) -> bool:
    count = shapes.count_leading_systems(messages)
    return any(message.role == "system" for message in messages[count:])


def _has_systems_only(messages: Messages) -> bool:
    return all(message.role == "system" for message in messages)


def _begins(messages: Messages) -> Message | None:
    """The first that is not a system message."""
    count = shapes.count_leading_systems(messages)
    return messages[count] if count < len(messages) else None


def _has_system_and_ends_with(*roles: str, calls: bool = False) -> Callable[[Messages], bool]:
    def is_raised(messages: Messages) -> bool:
        last = messages[-1] if messages else None
        return (
            last is not None
            and last.role in roles
            and bool(last.tool_calls) == calls
            and any(message.role == "system" for message in messages)
        )

    return is_raised


def _is_begun_by(
    role: str, *, calls: bool = False, asks: bool = True
) -> Callable[[Messages], bool]:
    """``asks``: the user speaks later."""

    def is_raised(messages: Messages) -> bool:
        first = _begins(messages)
        return (
            first is not None
            and first.role == role
            and bool(first.tool_calls) == calls
            and any(message.role == "user" for message in messages) == asks
        )

    return is_raised


def _asks_after(is_such: Callable[[Message], bool]) -> Callable[[Messages], bool]:
    def is_raised(messages: Messages) -> bool:
        return any(is_such(one) and other.role == "user" for one, other in pairwise(messages))

    return is_raised


def _has_any(is_such: Callable[[Message], bool]) -> Callable[[Messages], bool]:
    return lambda messages: any(map(is_such, messages))


_BEGINNINGS = (shapes.as_they_are, *map(shapes.opened_by_user, ("", shapes.MINIMAL)))
_PAUSES = (shapes.as_they_are, *map(shapes.answered_before_question, ("", shapes.MINIMAL)))
_WORDY_WAYS = (
    shapes.calls_after_words,
    shapes.words_as_thoughts,
    shapes.calls_with_thoughts,
    shapes.calls_after_words_and_user,
)


_ORDERLY_WAYS = (
    shapes.words_as_thoughts,
    shapes.calls_after_words_and_user,
    shapes.calls_after_words,
)
"""Those first in which the call stays behind an opening mark of the assistant's."""


def _of_wordy_calls(name: str, call: Message, *, past: bool, orders: bool = False) -> Question:
    def is_raised(messages: Messages) -> bool:
        now = shapes.find_now(messages)
        return any(
            shapes.has_wordy_call(message) and bool(message.thinking) == bool(call.thinking)
            for message in (messages[:now] if past else messages[now:])
        )

    ways = _ORDERLY_WAYS if orders else _WORDY_WAYS
    return Question(
        f"{name} {'in front of' if orders else 'and'} a call{' in the past' if past else ''}",
        is_raised,
        (shapes.as_they_are, *(shapes.of_wordy_calls(way, past=past) for way in ways)),
        ([_ASK, call, _RESULT, *((_ADDS, _WHY) if past else ())],),
        thoughts=not past and bool(call.thinking),
        orders=orders,
    )


_NEIGHBOURS = Question(
    "neighbours",
    shapes.has_neighbours,
    (shapes.as_they_are, shapes.merge_neighbours),
    ([_ASK, _WHY], [_ASK, _SAYS, _ADDS, _WHY]),
)


def _both(first: Reshape, second: Reshape) -> Reshape:
    return lambda messages: second(first(messages))


# ----------------------------------------------------------------- the questions

QUESTIONS: tuple[Question, ...] = (
    Question(
        "a last system message after an answer",
        partial(shapes.ends_with_system_after, "assistant"),
        (shapes.as_they_are, shapes.last_systems_to_user),
        ([_ASK, _SAYS, _SYSTEM], [_SYSTEM, _ASK, _SAYS, _MORE]),
        opens=True,
    ),
    Question(
        "a last system message after a call",
        partial(shapes.ends_with_system_after, "assistant", calls=True),
        (shapes.as_they_are, shapes.last_systems_to_user),
        ([_ASK, _CALL, _SYSTEM],),
        opens=True,
    ),
    Question(
        "a last system message after a question",
        partial(shapes.ends_with_system_after, "user"),
        (shapes.as_they_are, shapes.hoist_systems),
        ([_ASK, _SYSTEM],),
        opens=True,
    ),
    Question(
        "a later system message",
        _has_later_system,
        (shapes.as_they_are, shapes.hoist_systems),
        (
            [_ASK, _SAYS, _SYSTEM, _WHY],
            [_SYSTEM, _ASK, _SAYS, _MORE, _WHY],
            [_SYSTEM, _ASK, _MORE, _SAYS, _WHY],
            [_ASK, _SYSTEM],
        ),
    ),
    Question(
        "two system messages",
        lambda messages: shapes.count_leading_systems(messages) > 1,
        (shapes.as_they_are, shapes.join_leading_systems),
        ([_SYSTEM, _MORE, _ASK],),
    ),
    Question(
        "system messages only",
        _has_systems_only,
        (shapes.as_they_are, shapes.systems_to_user),
        ([_SYSTEM],),
        opens=True,
    ),
    Question(
        "a system message",
        _has_system_and_ends_with("user", "system"),
        (shapes.as_they_are, shapes.systems_to_user),
        ([_SYSTEM, _ASK],),
    ),
    Question(
        "a system message, a result",
        _has_system_and_ends_with("tool"),
        (shapes.as_they_are, shapes.systems_to_user),
        ([_SYSTEM, _ASK, _CALL, _RESULT],),
    ),
    Question(
        "a system message, an answer",
        _has_system_and_ends_with("assistant"),
        (shapes.as_they_are, shapes.systems_to_user),
        ([_SYSTEM, _ASK, _SAYS],),
    ),
    Question(
        "a system message, a call",
        _has_system_and_ends_with("assistant", calls=True),
        (shapes.as_they_are, shapes.systems_to_user),
        ([_SYSTEM, _ASK, _CALL],),
    ),
    *(
        Question(
            f"{between.role} between call and result",
            shapes.has_distant_results(between.role),
            (shapes.as_they_are, shapes.results_after_calls),
            ([_ASK, _CALL, between, _RESULT],),
        )
        for between in (_WHY, _SAYS, _SYSTEM)
    ),
    Question(
        "results without calls",
        shapes.has_lone_results,
        (shapes.as_they_are, shapes.lone_results_from_user),
        ([_ASK, _RESULT], [_RESULT, _SAYS, _ASK], [_HIGH, _LOW, _ASK, _NO]),
    ),
    Question(
        "empty answers",
        _has_any(shapes.says_nothing),
        (shapes.as_they_are, shapes.drop_empty_answers),
        ([_ASK, _NOTHING, _WHY],),
    ),
    _NEIGHBOURS,
    Question(
        "words after a call",
        shapes.has_words_after_call,
        (shapes.as_they_are, shapes.merge_all_neighbours),
        ([_ASK, _CALL, _calling("Helgoland", content="hold on")],),
    ),
    *(
        _of_wordy_calls(name, call, past=past, orders=orders)
        for orders in (True, False)
        for past in (True, False)
        for name, call in (("words", _WORDY_CALL), ("thoughts, words", _FULL_CALL))
    ),
    Question(
        "several calls",
        _has_any(lambda message: len(message.tool_calls) > 1),
        (shapes.as_they_are, shapes.one_call_each),
        ([_ASK, _TWO_CALLS, *_TWO_RESULTS], [_ASK, _TWO_CALLS, *_TWO_RESULTS, _SAYS, _WHY]),
    ),
    Question(
        "a call",
        _has_any(shapes.is_about_tools),
        (
            shapes.as_they_are,
            shapes.calls_as_text,
            shapes.results_from_user,
            _both(shapes.results_from_user, shapes.calls_as_text),
        ),
        (list(EXAMPLE_CALL),),
    ),
    *(
        Question(
            f"begun by {name}{'' if asks else ' alone'}",
            _is_begun_by(first.role, calls=bool(first.tool_calls), asks=asks),
            _BEGINNINGS,
            tuple(
                filter(None, ([*example, _SAYS, _WHY],) if asks else (example, [*example, _SAYS]))
            ),
        )
        for asks in (True, False)
        for name, first, example in (
            ("an answer", _SAYS, []),
            ("a call", _CALL, [_CALL, _RESULT]),
            ("a result", _RESULT, [_RESULT]),
        )
    ),
    Question(
        "ends with a call",
        lambda messages: bool(messages and messages[-1].tool_calls),
        (shapes.as_they_are, *map(shapes.ended_by_user, ("", shapes.MINIMAL))),
        ([_ASK, _CALL],),
    ),
    Question(
        "a question after a result",
        _asks_after(lambda message: message.role == "tool"),
        _PAUSES,
        ([_ASK, _CALL, _RESULT, _WHY], [_ASK, _CALL, _RESULT, _WHY, _SAYS, _ON]),
    ),
    Question(
        "a question after a call",
        _asks_after(lambda message: bool(message.tool_calls)),
        _PAUSES,
        ([_ASK, _CALL, _WHY], [_ASK, _CALL, _WHY, _SAYS, _ON]),
    ),
    _NEIGHBOURS,
)
"""In the order in which they are asked; the examples of each pass through those that follow it. One
comes twice: calls that are told as text make new neighbours. What follows it is what follows its
last place, so that no question waits for its own answer; its examples raise none of those between.
"""
