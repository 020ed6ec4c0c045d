"""Text that names the tags of calls, or looks like a call, is text."""

import json

import pytest

from ollama_async.prompts.parsers import detected, named
from tests.unit.prompts.parsers.feeding import read

TOOL = {
    "type": "function",
    "function": {
        "name": "grep",
        "parameters": {
            "type": "object",
            "properties": {"pattern": {"type": "string"}, "path": {"type": "string"}},
            "required": ["pattern"],
        },
    },
}
HERMES = detected("<tool_call>{}</tool_call>")
CODER = detected("<tool_call><function=a><parameter=b></parameter></function></tool_call>")
LLAMA = detected("<|python_tag|>")
FUNCTIONARY = detected(">>>all")

PROSE = [
    "Write `<tool_call>` first, then JSON, then `</tool_call>`. Done.",
    "The tag <tool_call> begins a call, </tool_call> ends it.",
    "<tool_call>, says the manual.",
    '"<tool_call>" and then?',
    "It is called <tool_call>",
    "<tool_call>" + " " * 500 + "is far away",
    "Use <tool_call>{...}</tool_call> to call. Done.",
    "Write <tool_call></tool_call> around it. Done.",
]
OBJECTS = [
    {"name": "grep", "version": "3.12", "year": 1991},
    {"name": "grep", "description": "searches", "parameters": {"type": "object"}},
    {"name": "grep", "parameters": {"pattern": "x"}, "note": "and more"},
    {"name": "grep", "parameters": {"path": "/"}},
    {"name": "grep"},
    {"name": "Bob", "parameters": {"pattern": "x"}},
]


def text_of(format_, answer, **asked):
    """Content, thoughts and calls."""
    result = read(format_, answer, tools=[TOOL], **asked)
    return result.content, result.thinking, result.calls


@pytest.mark.parametrize("format_", [HERMES, CODER], ids=["hermes", "coder"])
@pytest.mark.parametrize("answer", PROSE)
def test_a_tag_mentioned_in_prose_is_text(format_, answer):
    assert text_of(format_, answer) == (answer, "", [])


@pytest.mark.parametrize("name", ["qwen3-thinking", "qwen3.5", "glm-4.7"])
def test_a_tag_mentioned_in_a_thought_does_not_end_it(name):
    thought = "I could use <tool_call> here, or `<tool_call>`, or not."
    answer = f"{thought}\n</think>\n\nHello."

    assert text_of(named(name), answer, think=True) == ("Hello.", thought, [])


@pytest.mark.parametrize("value", OBJECTS, ids=json.dumps)
def test_an_answer_in_json_is_no_call_unless_it_is_nothing_else(value):
    answer = json.dumps(value)

    assert text_of(LLAMA, answer) == (answer, "", [])


def test_white_space_after_a_mentioned_tag_is_kept():
    answer = "Try this:\n>>> import os\n>>>  os.getcwd()\nDone."

    assert text_of(FUNCTIONARY, f"all\n{answer}")[0].endswith(answer)


def test_a_line_of_a_python_session_that_names_a_tool_is_text():
    answer = "Try:\n>>> import os\n>>> grep\nNameError\n>>> grep(1)\nok"

    assert text_of(FUNCTIONARY, f"all\n{answer}")[0].endswith(answer)
