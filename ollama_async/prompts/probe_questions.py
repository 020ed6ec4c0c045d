"""The questions that a template probe asks, and the small example conversations it asks them with.

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
    """``is_raised`` is whether the answer matters for a conversation. ``remedies`` are the shapes
    that may help, the smallest change first. The chosen shape must show all ``examples`` whole,
    with their thoughts if ``thoughts`` is set and any shape shows them. ``opens``: their prompts
    must end with the beginning of the assistant's turn. ``orders``: only the order of texts counts;
    texts that are missing are another question's.
    """

    name: str
    is_raised: Callable[[Messages], bool]
    remedies: tuple[Reshape, ...]
    examples: tuple[Messages, ...]
    thoughts: bool = False
    opens: bool = False
    orders: bool = False

    @property
    def shapes(self) -> tuple[Reshape, ...]:
        return (shapes.as_they_are, *self.remedies)


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
"""A conversation that every working template accepts."""
EXAMPLE_BEGINNING = Message("assistant", "rising water: \n")
"""The beginning of an answer."""

_QUESTION = EXAMPLE_QUESTION
_SYSTEM, _MORE = Message("system", "stormy rules"), Message("system", "calmer rules")
_QUESTION_2, _QUESTION_3 = Message("user", "more words"), Message("user", "last words")
_ANSWER, _ANSWER_2 = (Message("assistant", text) for text in ("rising water", "falling water"))
_EMPTY_ANSWER = Message("assistant")


def _calling(*places: str, content: str = "", thinking: str = "") -> Message:
    calls = [ToolCall(ToolFunction(_NAME, {"place": place}), id=_id(place)) for place in places]
    return Message("assistant", content, thinking=thinking, tool_calls=calls)


def _answering(place: str, text: str) -> Message:
    return Message("tool", text, tool_name=_NAME, tool_call_id=_id(place))


def _id(place: str) -> str:
    return f"call_{place.lower()[:8]:_<8}"


_CALL, _RESULT = _calling(_PLACE), _answering(_PLACE, "high tide")
EXAMPLE_CALL = (_QUESTION, _CALL, _RESULT)
_CALL_WITH_TEXT = _calling(_PLACE, content="hold on")
_FULL_CALL = _calling(_PLACE, content="hold on", thinking=_THOUGHT)
_HIGH, _LOW, _NO = (Message("tool", f"{kind} tide") for kind in ("high", "low", "no"))
_TWO_CALLS = _calling(_PLACE, "Helgoland")
_TWO_RESULTS = [_RESULT, _answering("Helgoland", "low tide")]


# ----------------------------------------------------------------- what raises a question


def _is_system(message: Message) -> bool:
    return message.role == "system"


def _without_leading_systems(messages: Messages) -> Messages:
    return messages[shapes.count_leading_systems(messages) :]


def _has_system_and_ends_with(*roles: str, calls: bool) -> Callable[[Messages], bool]:
    return lambda messages: (
        bool(messages)
        and messages[-1].role in roles
        and bool(messages[-1].tool_calls) == calls
        and any(map(_is_system, messages))
    )


def _is_like(message: Message, example: Message) -> bool:
    return message.role == example.role and bool(message.tool_calls) == bool(example.tool_calls)


def _is_begun_by(example: Message, *, has_question: bool) -> Callable[[Messages], bool]:
    """``has_question``: there is a later message of the user."""

    def is_raised(messages: Messages) -> bool:
        has_user = any(message.role == "user" for message in messages)
        rest = _without_leading_systems(messages)
        return bool(rest) and _is_like(rest[0], example) and has_user == has_question

    return is_raised


def _asks_after(example: Message) -> Callable[[Messages], bool]:
    def is_raised(messages: Messages) -> bool:
        asked = (one for one, other in pairwise(messages) if other.role == "user")
        if example.tool_calls:
            return any(one.tool_calls for one in asked)
        return any(one.role == example.role for one in asked)

    return is_raised


def _has_any(is_such: Callable[[Message], bool]) -> Callable[[Messages], bool]:
    return lambda messages: any(map(is_such, messages))


_BEGINNINGS = tuple(map(shapes.opened_by_user, ("", shapes.MINIMAL)))
_TEXT_AND_CALL = (
    shapes.calls_after_text,
    shapes.text_as_thoughts,
    shapes.calls_with_thoughts,
    shapes.calls_after_text_and_user,
)
_TEXT_BEFORE_CALL = (
    shapes.text_as_thoughts,
    shapes.calls_after_text_and_user,
    shapes.calls_after_text,
)
"""First the shapes in which the call stays behind an opening tag of the assistant's."""


def _calls_with_text(name: str, call: Message, *, past: bool, orders: bool = False) -> Question:
    def is_raised(messages: Messages) -> bool:
        now = shapes.find_unfinished(messages)
        return any(
            shapes.has_call_with_text(message) and bool(message.thinking) == bool(call.thinking)
            for message in (messages[:now] if past else messages[now:])
        )

    ways = _TEXT_BEFORE_CALL if orders else _TEXT_AND_CALL
    return Question(
        f"{name} {'in front of' if orders else 'and'} a call{' in the past' if past else ''}",
        is_raised,
        tuple(shapes.reshape_calls_with_text(way, past=past) for way in ways),
        ([_QUESTION, call, _RESULT, *((_ANSWER_2, _QUESTION_2) if past else ())],),
        thoughts=not past and bool(call.thinking),
        orders=orders,
    )


_NEIGHBOURS = Question(
    "neighbours",
    shapes.has_neighbours,
    (shapes.merge_neighbours,),
    ([_QUESTION, _QUESTION_2], [_QUESTION, _ANSWER, _ANSWER_2, _QUESTION_2]),
)


# ----------------------------------------------------------------- the questions

QUESTIONS: tuple[Question, ...] = (
    *(
        Question(
            f"a last system message after {name}",
            partial(shapes.ends_with_system_after, last.role, calls=bool(last.tool_calls)),
            (reshape,),
            examples,
            opens=True,
        )
        for name, last, reshape, examples in (
            (
                "an answer",
                _ANSWER,
                shapes.last_systems_to_user,
                ([_QUESTION, _ANSWER, _SYSTEM], [_SYSTEM, _QUESTION, _ANSWER, _MORE]),
            ),
            ("a call", _CALL, shapes.last_systems_to_user, ([_QUESTION, _CALL, _SYSTEM],)),
            ("a question", _QUESTION, shapes.hoist_systems, ([_QUESTION, _SYSTEM],)),
        )
    ),
    Question(
        "a later system message",
        lambda messages: any(map(_is_system, _without_leading_systems(messages))),
        (shapes.hoist_systems,),
        (
            [_QUESTION, _ANSWER, _SYSTEM, _QUESTION_2],
            [_SYSTEM, _QUESTION, _ANSWER, _MORE, _QUESTION_2],
            [_SYSTEM, _QUESTION, _MORE, _ANSWER, _QUESTION_2],
            [_QUESTION, _SYSTEM],
        ),
    ),
    Question(
        "two system messages",
        lambda messages: shapes.count_leading_systems(messages) > 1,
        (shapes.join_leading_systems,),
        ([_SYSTEM, _MORE, _QUESTION],),
    ),
    Question(
        "system messages only",
        lambda messages: all(map(_is_system, messages)),
        (shapes.systems_to_user,),
        ([_SYSTEM],),
        opens=True,
    ),
    *(
        Question(
            f"a system message{name}",
            _has_system_and_ends_with(*roles, calls=bool(rest[-1].tool_calls)),
            (shapes.systems_to_user,),
            ([_SYSTEM, *rest],),
        )
        for name, roles, rest in (
            ("", ("user", "system"), [_QUESTION]),
            (", a result", ("tool",), [_QUESTION, _CALL, _RESULT]),
            (", an answer", ("assistant",), [_QUESTION, _ANSWER]),
            (", a call", ("assistant",), [_QUESTION, _CALL]),
        )
    ),
    *(
        Question(
            f"{between.role} between call and result",
            shapes.has_distant_results(between.role),
            (shapes.results_after_calls,),
            ([_QUESTION, _CALL, between, _RESULT],),
        )
        for between in (_QUESTION_2, _ANSWER, _SYSTEM)
    ),
    Question(
        "results without calls",
        shapes.has_lone_results,
        (shapes.lone_results_from_user,),
        ([_QUESTION, _RESULT], [_RESULT, _ANSWER, _QUESTION], [_HIGH, _LOW, _QUESTION, _NO]),
    ),
    Question(
        "empty answers",
        _has_any(shapes.is_empty_answer),
        (shapes.drop_empty_answers,),
        ([_QUESTION, _EMPTY_ANSWER, _QUESTION_2],),
    ),
    _NEIGHBOURS,
    Question(
        "text after a call",
        shapes.has_text_after_call,
        (shapes.merge_all_neighbours,),
        ([_QUESTION, _CALL, _calling("Helgoland", content="hold on")],),
    ),
    *(
        _calls_with_text(name, call, past=past, orders=orders)
        for orders in (True, False)
        for past in (True, False)
        for name, call in (("text", _CALL_WITH_TEXT), ("thoughts, text", _FULL_CALL))
    ),
    Question(
        "several calls",
        _has_any(lambda message: len(message.tool_calls) > 1),
        (shapes.one_call_each,),
        (
            [_QUESTION, _TWO_CALLS, *_TWO_RESULTS],
            [_QUESTION, _TWO_CALLS, *_TWO_RESULTS, _ANSWER, _QUESTION_2],
        ),
    ),
    Question(
        "a call",
        _has_any(shapes.is_about_tools),
        (
            shapes.calls_as_text,
            shapes.results_from_user,
            lambda messages: shapes.calls_as_text(shapes.results_from_user(messages)),
        ),
        (list(EXAMPLE_CALL),),
    ),
    *(
        Question(
            f"begun by {name}{'' if has_question else ' alone'}",
            _is_begun_by(first, has_question=has_question),
            _BEGINNINGS,
            ([*example, _ANSWER, _QUESTION_2],)
            if has_question
            else ((example,) if example else ()) + ([*example, _ANSWER],),
        )
        for has_question in (True, False)
        for name, first, example in (
            ("an answer", _ANSWER, []),
            ("a call", _CALL, [_CALL, _RESULT]),
            ("a result", _RESULT, [_RESULT]),
        )
    ),
    Question(
        "ends with a call",
        lambda messages: bool(messages and messages[-1].tool_calls),
        tuple(map(shapes.ended_by_user, ("", shapes.MINIMAL))),
        ([_QUESTION, _CALL],),
    ),
    *(
        Question(
            f"a question after {name}",
            _asks_after(last),
            tuple(map(shapes.answered_before_question, ("", shapes.MINIMAL))),
            ([*start, _QUESTION_2], [*start, _QUESTION_2, _ANSWER, _QUESTION_3]),
        )
        for name, last, start in (
            ("a result", _RESULT, [_QUESTION, _CALL, _RESULT]),
            ("a call", _CALL, [_QUESTION, _CALL]),
        )
    ),
    _NEIGHBOURS,
)
"""The questions in the order in which they are asked. The examples of each pass through those that
follow it. One question comes twice, because calls that are rendered as text make new neighbours.
Its examples pass only through what follows its last place, so that no question waits for its own
answer; they raise none of the questions between.
"""
