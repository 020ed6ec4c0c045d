"""An agent at work for long, before every renderer and every template that there is."""

import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts import renderers
from ollama_async.prompts.truncation import truncate
from tests.unit.prompts.real_templates import NAMES, renderer_of

RULE, TASK = "Be kind to sailors.", "Find the harbour of the lighthouse."
TOOL = {
    "name": "read_page",
    "description": "Reads a page",
    "parameters": {
        "type": "object",
        "properties": {"page": {"type": "integer", "description": "Its number"}},
        "required": ["page"],
    },
}
SHOWN_ROUNDS, ROUNDS = 6, 60
SILENT = {"olmo3-think", "olmo3-32b-think"}
"""Renderers of models that know no tools: they write no results."""


def renderer(name):
    return renderer_of(name) if name in NAMES else renderers.named(name)


def at_work(rounds):
    """A question that was answered, then a task that takes so many rounds."""
    messages = [
        Message("system", RULE),
        Message("user", "What is a whale?"),
        Message("assistant", "An animal."),
        Message("user", TASK),
    ]
    for page in range(rounds):
        call = ToolCall(ToolFunction("read_page", {"page": page}), id=f"call_{page:05}")
        messages += [
            Message("assistant", tool_calls=[call]),
            Message(
                "tool",
                f"On page {page} there are whales.",
                tool_name="read_page",
                tool_call_id=call.id,
            ),
        ]
    tools = [{"type": "function", "function": TOOL}]
    return Prompt(messages=messages, tools=tools)


@pytest.mark.parametrize("name", [*renderers.NAMES, *NAMES])
def test_the_task_and_the_newest_results_stay(name):
    render = renderer(name).render
    room = len(render(at_work(SHOWN_ROUNDS)))
    text = truncate(at_work(ROUNDS), render, len, most=room, target=room)

    assert (RULE in text) is (RULE in render(at_work(SHOWN_ROUNDS)))
    assert text.count(TASK) == 1
    assert "An animal." not in text
    if name not in SILENT:
        pages = [page for page in range(ROUNDS) if f"On page {page} there are" in text]
        assert pages[-1] == ROUNDS - 1
        assert pages == list(range(pages[0], ROUNDS))
        assert len(pages) >= SHOWN_ROUNDS - 1
    assert len(text) <= room


@pytest.mark.parametrize("name", [*renderers.NAMES, *NAMES])
def test_the_task_stays_when_no_round_does(name):
    render = renderer(name).render
    room = len(render(at_work(0)))
    text = truncate(at_work(ROUNDS), render, len, most=room, target=1)

    assert TASK in text
    assert "there are whales" not in text
