"""Whatever the shape of a conversation, each of its texts is in the prompt, once and in order.

The one thing that may be missing is thinking: the families leave the thoughts of past turns out,
and some have no place for thoughts at all.
"""

import re

import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.renderers import NAMES, named

SYSTEM = {"system", "developer"}
THINK = (None, True, False, "low")
TOOLS = [{"type": "function", "function": {"name": "another", "parameters": {"type": "object"}}}]


def system(text, role="system"):
    return Message(role, text)


def user(text):
    return Message("user", text)


def said(text="", *calls, thinking=""):
    return Message("assistant", text, thinking=thinking, tool_calls=list(calls))


def call(ident):
    return ToolCall(ToolFunction(f"act_{ident}", {"key": f"value-{ident}"}), id=ident)


def result(text, ident="", name=""):
    return Message("tool", text, tool_call_id=ident, tool_name=name)


ASKED, AGAIN = user("asked-a"), user("asked-b")
ACTED = said("", call("a"))
RESULT = result("result-a", "a")

SHAPES = {
    "question": [ASKED],
    "nothing but a system message": [system("rule-a")],
    "system message": [system("rule-a"), ASKED],
    "two system messages at the start": [system("rule-a"), system("rule-b"), ASKED],
    "two system messages": [system("rule-a"), ASKED, system("rule-b"), AGAIN],
    "later system message": [ASKED, said("reply-a"), system("rule-a"), AGAIN],
    "system message at the end": [ASKED, said("reply-a"), AGAIN, system("rule-a")],
    "developer": [system("rule-a", "developer"), ASKED],
    "later developer": [ASKED, said("reply-a"), system("rule-a", "developer"), AGAIN],
    "system and developer": [system("rule-a"), system("rule-b", "developer"), ASKED],
    "greeting": [said("greeting-a"), ASKED],
    "greeting after a system message": [system("rule-a"), said("greeting-a"), ASKED],
    "two questions": [ASKED, AGAIN],
    "two replies": [ASKED, said("reply-a"), said("reply-b"), AGAIN],
    "result": [ASKED, ACTED, RESULT],
    "user after a result": [ASKED, ACTED, RESULT, AGAIN],
    "system message after a result": [ASKED, ACTED, RESULT, system("rule-a")],
    "system message before a result": [ASKED, ACTED, system("rule-a"), RESULT],
    "reply after a result": [ASKED, ACTED, RESULT, said("reply-a"), AGAIN],
    "two calls": [ASKED, said("", call("a"), call("b")), RESULT, result("result-b", "b")],
    "results out of order": [
        ASKED,
        said("", call("a"), call("b")),
        result("result-b", "b"),
        RESULT,
    ],
    "results without ids": [
        ASKED,
        said("", call("a"), call("b")),
        result("result-a"),
        result("result-b"),
    ],
    "results with names": [
        ASKED,
        said("", call("a"), call("b")),
        result("result-b", name="act_b"),
        result("result-a", name="act_a"),
    ],
    "user between results": [
        ASKED,
        said("", call("a"), call("b")),
        RESULT,
        AGAIN,
        result("result-b", "b"),
    ],
    "words beside a call": [ASKED, said("told-a", call("a")), RESULT],
    "words and thoughts beside calls": [
        ASKED,
        said("told-a", call("a"), call("b"), thinking="thought-a"),
        RESULT,
        result("result-b", "b"),
        AGAIN,
    ],
    "words and thoughts beside calls of the answer being made": [
        ASKED,
        said("told-a", call("a"), call("b"), thinking="thought-a"),
        RESULT,
        result("result-b", "b"),
    ],
    "words beside a call, and a reply": [
        ASKED,
        said("told-a", call("a")),
        RESULT,
        said("reply-a"),
        AGAIN,
    ],
    "words beside calls of a loop": [
        ASKED,
        said("told-a", call("a")),
        RESULT,
        said("told-b", call("b")),
        result("result-b", "b"),
    ],
    "call without a result": [ASKED, ACTED, AGAIN],
    "call at the end": [ASKED, said("told-a", call("a"))],
    "result without a call": [ASKED, RESULT, AGAIN],
    "nothing but a result": [RESULT],
    "result of an unknown call": [ASKED, ACTED, result("result-a", "z"), said("reply-a"), AGAIN],
    "empty question": [user(""), said("reply-a"), AGAIN],
    "empty reply": [ASKED, said(""), AGAIN],
    "empty system message": [system(""), ASKED],
    "empty result": [
        ASKED,
        said("", call("a"), call("b")),
        result("", "a"),
        result("result-b", "b"),
    ],
    "beginning of an answer": [ASKED, said("begun-a")],
    "beginning of an answer with thoughts": [ASKED, said("begun-a", thinking="thought-a")],
    "beginning of an answer after a result": [ASKED, ACTED, RESULT, said("begun-a")],
    "beginning of an answer after a reply": [ASKED, said("reply-a"), said("begun-a")],
    "beginning of an answer after a system message": [ASKED, system("rule-a"), said("begun-a")],
    "unfinished thought": [ASKED, said(thinking="thought-a")],
    "unfinished thought after a result": [ASKED, ACTED, RESULT, said(thinking="thought-a")],
    "thoughts of the past": [ASKED, said("reply-a", thinking="thought-a"), AGAIN],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_text_of_every_message_is_there_once(name, shape):
    messages = SHAPES[shape]
    once = [message.content for message in messages if message.content]
    once += [f"value-{ident}" for ident in idents(messages)]
    for think in THINK:
        text = render(name, messages, think)

        assert [(part, text.count(part)) for part in once] == [(part, 1) for part in once], think
        assert all(f"act_{ident}" in text for ident in idents(messages)), think


@pytest.mark.parametrize("name", NAMES)
def test_what_was_said_stays_in_order(name):
    """Except for system messages, which some families gather at the top, and for words beside
    calls, which some write after these.
    """
    for shape, messages in SHAPES.items():
        rules = [message.content for message in messages if message.role in SYSTEM]
        rules = [rule for rule in rules if rule]
        talk = [message.content for message in messages if is_in_order(message)]
        for think in THINK:
            text = render(name, messages, think)

            assert found(text, rules) == rules, (shape, think)
            assert found(text, talk) == talk, (shape, think)


@pytest.mark.parametrize("name", NAMES)
def test_results_come_after_their_calls_and_in_order_with_what_was_said(name):
    for shape, messages in SHAPES.items():
        for think in THINK:
            text = render(name, messages, think)

            for earlier, later in around_results(messages):
                assert found(text, [earlier, later]) == [earlier, later], (shape, think)


THOUGHTLESS = {"qwen3-coder", "qwen3-vl-instruct", "olmo3", "olmo3.1", "functiongemma", "lfm2"}
"""Families that do not think."""
FORGETFUL = {"cogito", "deepseek3.1", "olmo3-think", "olmo3-32b-think"}
"""Families that are shown none but those of the answer's beginning."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in THOUGHTLESS])
def test_thoughts_of_the_answer_being_made_are_there(name):
    """Those before the user's last message may be left out, as the models were trained."""
    for shape, messages in SHAPES.items():
        pending = messages[messages.index(ASKED) + 1 :] if ASKED in messages else messages
        thinks = [message for message in pending if message.thinking]
        if thinks and AGAIN not in pending and not (name in FORGETFUL and thinks[0].tool_calls):
            assert "thought-a" in render(name, messages, think=True), shape


def idents(messages):
    return [made.id for message in messages for made in message.tool_calls]


def is_in_order(message):
    is_talk = message.role in {"user", "assistant"} and not message.tool_calls
    return is_talk and bool(message.content)


def around_results(messages):
    """Pairs of texts of which the first comes before the second because one is a result."""
    for place, message in enumerate(messages):
        if message.role == "tool" and message.content:
            ident = message.tool_call_id
            if ident in idents(messages[:place]):
                yield f"value-{ident}", message.content
            yield from (
                (message.content, other.content) for other in messages[place:] if is_in_order(other)
            )
            yield from (
                (other.content, message.content) for other in messages[:place] if is_in_order(other)
            )


def found(text, texts):
    return re.findall("|".join(map(re.escape, texts)), text) if texts else []


def render(name, messages, think):
    return named(name).render(Prompt(messages=list(messages), tools=TOOLS, think=think))
