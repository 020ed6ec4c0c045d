"""Whatever is done to a conversation, its texts are all there, and in their order."""

import json

import pytest
from hypothesis import given

from ollama_async.core.conversation import Message, ToolCall, ToolFunction
from ollama_async.prompts import message_shapes as shapes
from tests.growth import is_linear
from tests.unit.prompts.conversation_shapes import lost, misplaced, rows

RESHAPES = {
    "join systems": shapes.join_leading_systems,
    "hoist systems": shapes.hoist_systems,
    "systems to user": shapes.systems_to_user,
    "merge": shapes.merge_neighbours,
    "merge all": shapes.merge_all_neighbours,
    "results after calls": shapes.results_after_calls,
    "lone results": shapes.lone_results_from_user,
    "one call each": shapes.one_call_each,
    "calls as text": shapes.calls_as_text,
    "results from user": shapes.results_from_user,
    "plain": shapes.as_plain_turns,
    **{
        f"{way.__name__}, {past}": shapes.reshape_calls_with_text(way, past=past)
        for past in (True, False)
        for way in (
            shapes.calls_after_text,
            shapes.text_as_thoughts,
            shapes.calls_with_thoughts,
            shapes.calls_after_text_and_user,
        )
    },
}
MOVES_WORDS_OF_LATER_MESSAGES = {"merge all", "results after calls", "one call each"}
"""Over calls or results without an answer; no template needs that in such conversations."""


def text_of(messages):
    return "\n".join(
        f"{m.thinking} {m.content} "
        + json.dumps([(c.function.name, c.function.arguments) for c in m.tool_calls])
        for m in messages
    )


@pytest.mark.parametrize("name", RESHAPES)
@given(messages=rows())
def test_no_text_is_lost(name, messages):
    before = list(messages)

    reshaped = RESHAPES[name](messages)

    assert lost(before, text_of(reshaped)) == []
    assert messages == before


@pytest.mark.parametrize("name", sorted({*RESHAPES} - MOVES_WORDS_OF_LATER_MESSAGES))
@given(messages=rows())
def test_texts_stay_in_order(name, messages):
    said = [m for m in messages if m.role not in {"tool", "system"}]

    assert misplaced(said, text_of(RESHAPES[name](messages))) == []


@given(messages=rows())
def test_plain_turns_alternate(messages):
    plain = shapes.as_plain_turns(messages)

    assert [m.role for m in plain] == [("user", "assistant")[n % 2] for n in range(len(plain))]
    assert not any(m.tool_calls for m in plain)


@given(messages=rows())
def test_calls_are_split_and_results_follow_them(messages):
    split = shapes.one_call_each(messages)

    assert all(len(m.tool_calls) < 2 for m in split)
    assert not shapes.has_distant_results("user")(shapes.results_after_calls(messages))


def test_results_find_their_calls_by_id_then_name_then_order():
    made = [ToolCall(ToolFunction(name), id=name * 2) for name in "abc"]
    messages = [
        Message("assistant", tool_calls=made),
        Message("tool", tool_call_id="cc"),
        Message("tool", tool_name="b"),
        Message("tool"),
        Message("tool"),
    ]

    assert shapes.find_calls(messages) == {1: (0, 2), 2: (0, 1), 3: (0, 0)}


def conversation_of_results(count, **names):
    made = [ToolCall(ToolFunction("a"), id=str(number)) for number in range(count)]
    return [Message("assistant", tool_calls=made), *[Message("tool", **names)] * count]


@pytest.mark.slow
@pytest.mark.parametrize("names", [{}, {"tool_name": "a"}, {"tool_name": "b"}])
def test_many_results_find_their_calls_in_order_and_in_linear_time(names):
    def prepare(count):
        messages = conversation_of_results(count, **names)
        return lambda: shapes.find_calls(messages)

    assert prepare(3000)() == {number + 1: (0, number) for number in range(3000)}
    assert is_linear(prepare, 3000)


def test_a_call_that_was_answered_by_its_id_is_not_answered_by_its_name():
    made = [ToolCall(ToolFunction("a"), id=name) for name in "xyz"]
    by_id, by_name = Message("tool", tool_call_id="x"), Message("tool", tool_name="a")
    messages = [Message("assistant", tool_calls=made), by_id, by_name, by_name, by_name]

    assert shapes.find_calls(messages) == {1: (0, 0), 2: (0, 1), 3: (0, 2)}


def test_a_system_text_goes_in_front_of_the_question_that_follows_it():
    system, ask, answer = Message("system", "s"), Message("user", "u"), Message("assistant", "a")

    assert shapes.systems_to_user([system, ask]) == [Message("user", "s\n\nu")]
    assert shapes.systems_to_user([ask, system, answer]) == [ask, Message("user", "s"), answer]
    assert shapes.systems_to_user([ask, answer, system]) == [ask, answer, Message("user", "s")]
