"""Every built-in renderer, against prompts recorded from Ollama.

``tests/vectors/renderers.jsonl`` has two kinds of lines: a conversation (``case``, ``messages``,
``tools``), and what one renderer makes of it (``name``, ``case``, ``output``) for the values of
``think`` that lead to that.
"""

import json
from datetime import date
from pathlib import Path

import msgspec
import pytest

from ollama_async.conversation import Message, Prompt
from ollama_async.prompts.renderers import NAMES, glimmer, named

VECTORS = Path(__file__).parents[3] / "vectors" / "renderers.jsonl"
RECORDED_ON = date(2026, 11, 21)
CLOCKED = {"glimmer": glimmer.family(lambda: RECORDED_ON)}
"""Renderers that write the date, with the one on which they were recorded."""

LINES = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
CASES = {line["case"]: line for line in LINES if "messages" in line}
EXPECTED = [line for line in LINES if "output" in line]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_the_recorded_one(name):
    renderer = CLOCKED.get(name) or named(name)
    recorded = {
        (line["case"], think): line["output"]
        for line in EXPECTED
        if line["name"] == name
        for think in line["think"]
    }

    assert {case: renderer.render(conversation(*case)) for case in recorded} == recorded


@pytest.mark.parametrize("name", NAMES)
def test_each_renderer_has_every_case_with_thinking_on_off_and_not_asked_for(name):
    recorded = [
        (line["case"], think)
        for line in EXPECTED
        if line["name"] == name
        for think in line["think"]
    ]

    assert sorted(recorded, key=str) == sorted(
        ((case, think) for case in CASES for think in (None, True, False)), key=str
    )


def test_nothing_is_recorded_for_a_renderer_that_does_not_exist():
    assert {line["name"] for line in EXPECTED} == set(NAMES)


def conversation(case, think):
    recorded = CASES[case]
    messages = msgspec.convert(recorded["messages"], list[Message])
    return Prompt(messages=messages, tools=recorded.get("tools", []), think=think)
