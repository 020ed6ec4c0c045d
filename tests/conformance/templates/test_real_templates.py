"""Every chat template that llama.cpp carries renders what it is made for.

``scripts/chat_templates.py`` fetches them; the test command does.
"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from tests.unit.prompts.conversation_shapes import (
    PREFILLS,
    SHAPES,
    TOOL,
    Shape,
    lost,
    misplaced,
    rows,
)
from tests.unit.prompts.real_templates import NAMES, renderer_of

SYSTEM = Message("system", "Be kind to sailors.")
USER = Message("user", "What is the tide?")
CALL = ToolCall(ToolFunction("get_tide", {"place": "Norderney", "days": 2}), id="call_9f8e7d6c")
CALLING = Message("assistant", tool_calls=[CALL])
RESULT = Message("tool", "flood at noon", tool_name="get_tide", tool_call_id=CALL.id)
TOOLS = [TOOL]
ANSWER = Message("assistant", "It rises.", thinking="Moon and sun.")
CONVERSATIONS = {
    "a question": Prompt(messages=[USER]),
    "a system text": Prompt(messages=[SYSTEM, USER]),
    "two questions at once": Prompt(messages=[USER, Message("user", "And the wind?")]),
    "several turns": Prompt(messages=[SYSTEM, USER, ANSWER, Message("user", "Why?")]),
    "tools": Prompt(messages=[SYSTEM, USER], tools=TOOLS),
    "a result": Prompt(messages=[USER, CALLING, RESULT], tools=TOOLS),
    "after a result": Prompt(
        messages=[USER, CALLING, RESULT, ANSWER, Message("user", "Thanks!")], tools=TOOLS
    ),
    "thinking": Prompt(messages=[USER, ANSWER, Message("user", "Why?")], think=True),
    "no thinking": Prompt(messages=[USER, ANSWER, Message("user", "Why?")], think=False),
    "a level of thinking": Prompt(messages=[USER], think="high"),
}

THINKING = ("Qwen-Qwen3-0.6B.jinja", "GLM-4.6.jinja", "deepseek-ai-DeepSeek-V3.1.jinja")


def test_the_templates_are_here():
    if NAMES or os.environ.get("OLLAMA_ASYNC_TEST_NO_SKIP"):
        assert len(NAMES) > 50
        assert {*THINKING} <= {*NAMES}
    else:
        pytest.skip("scripts/chat_templates.py was not run")


def said(prompt):
    """What must not be missing in the text."""
    for message in prompt.messages:
        yield message.content
        for call in message.tool_calls:
            yield from (call.function.name, "Norderney")
    for tool in prompt.tools:
        yield tool["function"]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_said_reaches_the_model(name):
    renderer = renderer_of(name)

    for prompt in CONVERSATIONS.values():
        text = renderer.render(prompt)
        assert [word for word in said(prompt) if word not in text] == []


WISHES = (True, False, "high")


def each(shapes):
    """Every shape as a prompt without and with a wish to think."""
    for number, (name, shape) in enumerate(shapes.items()):
        for think in (None, WISHES[number % len(WISHES)]):
            yield name, shape.prompt(think)


def check_whole(prompt, text, name=""):
    assert lost(prompt.messages, text) == [], name
    assert misplaced(prompt.messages, text) == [], name


@pytest.mark.parametrize("name", NAMES)
def test_conversations_of_every_shape_reach_the_model_whole_and_in_order(name):
    for shape_name, prompt in each(SHAPES):
        check_whole(prompt, renderer_of(name).render(prompt), shape_name)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_was_begun_goes_on(name):
    for shape_name, prompt in each(PREFILLS):
        text = renderer_of(name).render(prompt)
        check_whole(prompt, text, shape_name)
        assert text.endswith(prompt.messages[-1].content), shape_name


def test_thoughts_that_were_begun_go_on_in_templates_that_show_them():
    begun = PREFILLS["thought begun"].prompt(think=True)
    going_on = [name for name in NAMES if renderer_of(name).render(begun).endswith("Thought1")]

    assert len(going_on) > len(NAMES) // 4


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_before_a_call_are_shown_beside_words_where_they_are_shown_alone(name):
    alone, beside = (
        renderer_of(name).render(SHAPES[f"{kind} (tools)"].prompt())
        for kind in ("thinking and call", "content, thinking and call")
    )

    assert ("Thought1" in beside) >= ("Thought1" in alone)


SYSTEM_LAST = {
    "after an answer": [USER, ANSWER, SYSTEM],
    "after an answer, system first": [SYSTEM, USER, ANSWER, SYSTEM],
    "after an answer, system in between": [USER, SYSTEM, ANSWER, SYSTEM],
    "after work": [USER, CALLING, RESULT, ANSWER, SYSTEM],
    "after a call": [USER, CALLING, SYSTEM],
    "after a question": [USER, SYSTEM],
    "after a second question": [USER, ANSWER, USER, SYSTEM],
    "alone": [SYSTEM],
    "two alone": [SYSTEM, SYSTEM],
}


@pytest.mark.parametrize("tools", [[], TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("name", NAMES)
def test_an_answer_begins_behind_a_last_system_message(name, tools):
    for think in (None, True, False):
        opening = opening_of(name, tools, think)
        for messages in SYSTEM_LAST.values():
            prompt = Prompt(messages=messages, tools=tools, think=think)
            assert renderer_of(name).render(prompt).endswith(opening)


@pytest.mark.parametrize("name", NAMES)
def test_tools_are_declared_as_often_as_with_a_question_alone(name):
    more = [Message("system", f"Rule{number}") for number in range(3)]
    other = Message("user", "And the wind?")  # some declare tools before each like the last
    conversations = [
        *([*more, USER], [USER, SYSTEM], [USER, ANSWER, SYSTEM], [SYSTEM, USER, ANSWER, SYSTEM]),
        [SYSTEM, USER, ANSWER, more[0], Message("user", "Why?"), ANSWER, more[1], other],
        [USER, CALLING, RESULT, SYSTEM, other],
    ]
    counts = {
        renderer_of(name).render(Prompt(messages=messages, tools=TOOLS)).count("The tide at a")
        for messages in [[USER], *conversations]
    }

    assert len(counts) == 1


@pytest.mark.parametrize("name", NAMES)
def test_words_beside_a_call_come_in_front_of_its_result_and_end_no_turn(name):
    wordy = Message("assistant", "Let me look.", tool_calls=[CALL])
    more = [ANSWER, Message("user", "Why?")]
    for tools in ([], TOOLS):
        text, without, past = (
            renderer_of(name).render(Prompt(messages=messages, tools=tools))
            for messages in (
                [USER, wordy, RESULT],
                [USER, CALLING, RESULT],
                [USER, wordy, RESULT, *more],
            )
        )

        assert text.endswith(without[without.rindex(RESULT.content) :])
        assert all(one.index(wordy.content) < one.index(RESULT.content) for one in (text, past))


MARKS = [
    *("</think>", "</thinking>", "</thought>", "</seed:think>", "</mm:think>", "[/THINK]"),
    *("<think>", "[THINK]", "<channel|>", "<|channel>", "[BEGIN FINAL RESPONSE]"),
    *("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_speaks_of_a_mark_is_shown_whole(name):
    for mark in MARKS:
        content = f"Flood says {mark} is a mark like {mark} of Ebb"
        for messages in (
            [USER, Message("assistant", content), USER],
            [USER, Message("assistant", content, thinking="Moon"), USER, ANSWER, USER],
            [USER, Message("assistant", f"<think>Moon</think>{content}"), USER],
            [USER, Message("assistant", content, tool_calls=[CALL]), RESULT],
            [USER, Message("assistant", content)],
        ):
            text = renderer_of(name).render(Prompt(messages=messages))
            assert [word for word in ("Flood says", "of Ebb") if word not in text] == [], mark


def opening_of(name, tools, think):
    """What is behind a question; without what ends all turns, if there is more."""
    one, two = (
        renderer_of(name).render(Prompt(messages=[USER] * count, tools=tools, think=think))
        for count in (1, 2)
    )
    behind, between = one.split(USER.content)[-1], two.split(USER.content)[-2]
    opening = behind[
        next(i for i in range(len(behind) + 1) if behind[: i + 1] != between[: i + 1]) :
    ]
    return opening if opening.strip() else behind


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(messages=rows(), tools=st.booleans())
def test_no_row_of_messages_is_refused(name, messages, tools):
    prompt = Shape(messages, tools).prompt()

    check_whole(prompt, renderer_of(name).render(prompt))


DROPS_NULL = {"MiniMax-M3.jinja"}
"""Says itself that arguments without a value are left out before."""


@pytest.mark.parametrize("name", sorted({*NAMES} - DROPS_NULL))
def test_arguments_without_a_value_are_shown(name):
    call = ToolCall(ToolFunction("get_tide", {"place": "Juist", "wind_strength": None}))
    prompt = Prompt(messages=[USER, Message("assistant", tool_calls=[call]), RESULT])

    assert "wind_strength" in renderer_of(name).render(prompt)


@pytest.mark.parametrize("name", sorted({*THINKING} & {*NAMES}))
def test_a_wish_to_think_changes_the_prompt(name):
    renderer = renderer_of(name)

    wished, refused = (renderer.render(CONVERSATIONS[wish]) for wish in ("thinking", "no thinking"))

    assert wished != refused
