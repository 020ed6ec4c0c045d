"""The parser of a model takes the answer to go on from what its renderer leaves open."""

import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts import parsers
from ollama_async.prompts.renderers import NAMES, named
from tests.unit.prompts.parsers.feeding import fed, joined, read

PARSERS = {name: name for name in NAMES if name in parsers.NAMES} | {
    "qwen3.8": "qwen3.5",
    "deepseek3.1": "deepseek3",
    "olmo3.1": "olmo3",
    "olmo3-32b-think": "olmo3-think",
    "gemma4-small": "gemma4",
    "gemma4-large": "gemma4",
}
ENDS = {
    "cohere": "<|END_THINKING|><|START_TEXT|>",
    "glimmer": "<|eom|><|start|>assistant to=user<|message|>",
    **dict.fromkeys(("gemma4", "gemma4-small", "gemma4-large"), "<channel|>"),
}
"""What ends a thought and begins the answer, where that is not ``</think>``."""
UNTHINKING = {"qwen3-coder", "qwen3-vl-instruct", "olmo3", "olmo3.1", "functiongemma", "lfm2"}
THINK = (None, True, False, "low")

ASKED = [Message("user", "ask")]
ACTED = [
    *ASKED,
    Message("assistant", tool_calls=[ToolCall(ToolFunction("add", {"a": 1}), id="1")]),
    Message("tool", "result", tool_call_id="1"),
]


def answer_to(name, messages, answer, think, **more):
    text = named(name).render(Prompt(messages=messages, think=think, **more))
    format_ = parsers.named(PARSERS[name])
    return read(format_, answer, messages=messages, rendered=text, think=think, **more)


def test_every_renderer_has_its_parser():
    assert set(PARSERS) == set(NAMES)


@pytest.mark.parametrize("tools", [[], None], ids=["no tools", "tools"])
@pytest.mark.parametrize("thinking", ["", "hm"])
@pytest.mark.parametrize("before", [ASKED, ACTED], ids=["asked", "acted"])
@pytest.mark.parametrize("name", NAMES)
def test_what_goes_on_from_words_is_content(name, before, thinking, tools):
    messages = [*before, Message("assistant", "To be", thinking=thinking)]
    more = {} if tools is None else {"tools": tools}
    for think in THINK:
        found = answer_to(name, messages, "gin with. All of it.", think, **more)

        assert (found.content, found.thinking) == ("gin with. All of it.", ""), think


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_on_from_words_is_not_held_back(name):
    messages = [*ASKED, Message("assistant", "To be")]
    text = named(name).render(Prompt(messages=messages))
    parser = parsers.named(PARSERS[name]).start(Prompt(messages=messages), text)

    assert joined(parser.feed("gin with. ") + parser.feed("All")).content.startswith("gin with.")


@pytest.mark.parametrize("think", [None, True, "low"])
@pytest.mark.parametrize("before", [ASKED, ACTED], ids=["asked", "acted"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNTHINKING])
def test_what_goes_on_from_a_thought_is_one_until_it_ends(name, before, think):
    """Some parsers drop thoughts that nobody asked for."""
    messages = [*before, Message("assistant", thinking="To be")]
    end = ENDS.get(name, "</think>")
    found = answer_to(name, messages, f"gin with.{end}All of it.", think, tools=[])

    assert found.content == "All of it."
    assert found.thinking in ({"gin with."} if think else {"gin with.", ""})


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_a_thought_that_the_client_wants_ended_is_content(name):
    messages = [*ASKED, Message("assistant", thinking="To begin with.")]
    header = " to=user<|message|>" if name == "glimmer" else ""
    found = answer_to(name, messages, f"{header}All of it.", False)

    assert (found.content, found.thinking) == ("All of it.", "")


@pytest.mark.parametrize("name", ["qwen3.5", "glm-4.7", "cohere"])
def test_an_answer_is_not_taken_for_the_rest_of_words_that_the_prompt_has_ended(name):
    """As with a template that closes the turn and begins another."""
    messages = [*ASKED, Message("assistant", "To be")]
    opened = "<|START_THINKING|>" if name == "cohere" else "<think>"
    pieces = ["hm", ENDS.get(name, "</think>"), "All of it."]
    format_ = parsers.named(PARSERS[name])
    found = joined(fed(format_, pieces, messages=messages, rendered=f"To be\n{opened}", think=True))

    assert (found.content, found.thinking) == ("All of it.", "hm")
