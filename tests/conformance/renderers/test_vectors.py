"""Every built-in renderer, against prompts recorded from Ollama; and by which rules we differ.

The vectors have two kinds of lines: a conversation (``case``, ``messages``, ``tools``), and what
one renderer makes of it (``name``, ``case``, ``output``) for the values of ``think`` that lead to
that.
"""

import json
from collections import Counter
from datetime import date
from pathlib import Path

import msgspec
import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.prompts.renderers import NAMES, glimmer, named

VECTORS = Path(__file__).parents[2] / "vectors"
RECORDED_ON = date(2026, 11, 21)
CLOCKED = {"glimmer": glimmer.family(lambda: RECORDED_ON)}
"""Renderers that write the date, with the one on which they were recorded."""

LINES = [
    json.loads(line)
    for file in ("renderers.jsonl", "renderers-2.jsonl")
    for line in (VECTORS / file).read_text(encoding="utf-8").splitlines()
]
CASES = {line["case"]: line for line in LINES if "messages" in line}
RECORDED = [
    (line["name"], line["case"], think, line["output"])
    for line in LINES
    if "output" in line
    for think in line["think"]
]


def lost(messages, prompt):
    """The texts of messages that are nowhere in ``prompt``, as they are or inside JSON."""
    texts = [message["content"] for message in messages]
    for message in messages:
        for call in message.get("tool_calls", []):
            texts += [str(value) for value in call["function"]["arguments"].values()]
    return [text for text in texts if text not in prompt and json.dumps(text)[1:-1] not in prompt]


def is_lossy(case, recorded):
    """Rule 1: Ollama leaves some text out: a later system message, words beside a call, or calls
    and their results. We keep it.
    """
    return lost(CASES[case]["messages"], recorded) != []


def is_closed(case, recorded):
    """Rule 2: Ollama ends the turn (or the line) that the client began. We continue it."""
    last = CASES[case]["messages"][-1]
    return last["role"] == "assistant" and not recorded.endswith(last["content"])


def is_mistaken(name, case):
    """Rule 3: Ollama writes what the user says after a result into the model's own turn."""
    roles = [message["role"] for message in CASES[case]["messages"]]
    return name == "functiongemma" and roles[-2:] == ["tool", "user"]


def rule(name, case, recorded):
    """The number of the rule by which our prompt is another one; 0: it is the recorded one."""
    rules = is_lossy(case, recorded), is_closed(case, recorded), is_mistaken(name, case)
    return next((number for number, holds in enumerate(rules, start=1) if holds), 0)


@pytest.mark.parametrize(
    ("name", "case", "think", "recorded"),
    [pytest.param(*row, id=f"{row[0]}, {row[1]}, think {row[2]}") for row in RECORDED],
)
def test_a_prompt_is_the_recorded_one_unless_that_lost_something(name, case, think, recorded):
    renderer = CLOCKED.get(name) or named(name)
    text = renderer.render(conversation(case, think))

    messages = CASES[case]["messages"]
    last = messages[-1]["content"]
    match rule(name, case, recorded):
        case 0:
            assert text == recorded
        case 1:
            assert lost(messages, text) == []
        case 2:
            assert text == recorded[: recorded.rindex(last)] + last
        case 3:
            assert text == recorded.replace(last, f"<start_of_turn>user\n{last}")


def test_the_rules_are_for_few_prompts():
    assert Counter(rule(name, case, recorded) for name, case, _, recorded in RECORDED) == {
        0: 618,
        1: 36,
        2: 45,
        3: 3,
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_renderer_has_every_case_with_thinking_on_off_and_not_asked_for(name):
    recorded = [(case, think) for of, case, think, _ in RECORDED if of == name]

    assert sorted(recorded, key=str) == sorted(
        ((case, think) for case in CASES for think in (None, True, False)), key=str
    )


def test_nothing_is_recorded_for_a_renderer_that_does_not_exist():
    assert {name for name, *_ in RECORDED} == set(NAMES)


def conversation(case, think):
    recorded = CASES[case]
    messages = msgspec.convert(recorded["messages"], list[Message])
    return Prompt(messages=messages, tools=recorded.get("tools", []), think=think)
