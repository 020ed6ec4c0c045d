"""Calls and their results in the prompts of built-in renderers."""

import re

import pytest

from ollama_async.prompts.renderers import NAMES
from tests.unit.prompts.renderers.rendering import (
    assistant,
    call,
    in_order,
    render,
    result,
    tool,
    user,
)


@pytest.mark.parametrize("name", ["gemma4", "deepseek3.1"])
def test_an_unfinished_thought_after_a_result_is_in_the_same_turn(name):
    acting = [user(), assistant("", call("a")), result("r")]
    text = render(name, *acting, assistant(thinking="To begin"), think=True)

    assert text.startswith(render(name, *acting, think=True))
    assert text.endswith("To begin")


@pytest.mark.parametrize("name", NAMES)
def test_several_calls_and_their_results_keep_their_order(name):
    text = render(
        name,
        user(),
        assistant("", call("north", "n", at="Oslo"), call("south", "s", at="Rome")),
        result("cold", tool_call_id="n"),
        result("warm", tool_call_id="s"),
        assistant("Both known."),
        user("Thanks"),
        tools=[tool("north"), tool("south")],
    )

    assert in_order(text, "north", "Oslo", "south", "Rome", "cold", "warm", "Both known.", "Thanks")


@pytest.mark.parametrize("name", NAMES)
def test_text_beside_a_call_is_kept(name):
    text = render(name, user(), assistant("Let me see.", call("look")), result("seen"))

    said = ["look", "Let me see."] if name.startswith("lfm2") else ["Let me see.", "look"]
    assert in_order(text, *said, "seen")


def test_results_that_neighbour_share_a_turn():
    text = render("qwen3.5", user(), assistant("", call("a"), call("b")), result("1"), result("2"))

    assert (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n"
    ) in text


def test_results_say_by_id_which_call_they_answer():
    calls = call("first", "1"), call("second", "2")
    text = render(
        "cohere",
        user(),
        assistant("", call("zeroth")),
        result("z"),
        assistant("", *calls),
        result("b", tool_call_id="2"),
        result("a", tool_call_id="1"),
    )

    numbers = re.findall(r'"tool_call_id": "(\d)",\n.*?"content": "(\w)"', text, re.DOTALL)
    assert numbers == [("0", "z"), ("2", "b"), ("1", "a")]


@pytest.mark.parametrize(
    ("results", "names"),
    [
        ([result("x"), result("y")], ["first", "second"]),
        ([result("y", tool_call_id="2"), result("x", tool_call_id="1")], ["second", "first"]),
        ([result("x", tool_name="other"), result("y")], ["other", "second"]),
        ([result("x"), result("y"), result("z", tool_call_id="9")], ["first", "second", "9"]),
    ],
)
def test_results_without_a_name_get_that_of_their_call(results, names):
    calls = call("first", "1"), call("second", "2")
    text = render("functiongemma", user(), assistant("", *calls), *results)

    assert re.findall(r"response:(\w*){", text) == names


def test_results_that_only_their_order_tells_apart_are_in_the_order_of_their_calls():
    calls = call("first", "1"), call("second", "2")
    text = render(
        "qwen3.5",
        user(),
        assistant("", *calls),
        result("y", tool_call_id="2"),
        result("x", tool_call_id="1"),
        user(),
        assistant("", call("third")),
        result("z"),
    )

    assert re.findall(r"<tool_response>\n(\w)\n", text) == ["x", "y", "z"]


def test_a_result_with_the_name_of_a_call_answers_the_next_of_these():
    calls = call("look"), call("add"), call("look")
    results = [result(word, tool_name=name) for word, name in (("a", "add"), ("b", "look"))]
    text = render("cohere", user(), assistant("", *calls), *results, result("c", tool_name="look"))

    numbers = re.findall(r'"tool_call_id": "(\d)",\n.*?"content": "(\w)"', text, re.DOTALL)
    assert numbers == [("1", "a"), ("0", "b"), ("2", "c")]


def test_results_without_a_call_are_in_a_turn_of_the_model():
    opened = {"deepseek3.1": "<｜Assistant｜>", "gemma4": "model\n", "functiongemma": "model\n"}  # noqa: RUF001
    for name, mark in opened.items():
        text = render(name, user(), result("r"), assistant("So."), user())

        assert in_order(text, "ask", mark, "r", "So.")
        assert text.count(mark) == len(["the answer", "the next one"])
