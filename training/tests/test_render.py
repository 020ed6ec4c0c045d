"""What the demo model reads and writes, and which of its answers count as right."""

import json

import pytest
from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction

from demo.example import Example, is_right
from demo.render import answer_text, prompt_text, split_thinking

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
NOT_THINKING = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def example(*messages, answer=None, rule="same text", **prompt):
    turns = [Message(role, content) for role, content in messages]
    return Example(
        "skill", "family", Prompt(messages=turns, **prompt), answer or Message("assistant"), rule
    )


def test_a_chat_is_chatml_and_ends_with_an_empty_thought():
    chat = example(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"))
    assert prompt_text(chat) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n" + NOT_THINKING
    )


@pytest.mark.parametrize(("think", "ends_thinking"), [(None, True), (False, True), (True, False)])
def test_only_thinking_leaves_the_thought_to_the_model(think, ends_thinking):
    text = prompt_text(example(("user", "Hi"), think=think))
    assert text.endswith(NOT_THINKING) == ends_thinking
    assert ends_thinking or text.endswith("<|im_start|>assistant\n")


def test_tools_are_json_lines_of_the_system_message():
    text = prompt_text(example(("system", "Be brief."), ("user", "Hi"), tools=[WEATHER, WEATHER]))
    system = text.partition("<|im_end|>")[0]
    line = json.dumps(WEATHER)
    assert system.startswith("<|im_start|>system\nBe brief.\n\n")
    assert f"<tools>\n{line}\n{line}\n</tools>" in system


def test_a_call_and_its_results_are_marked():
    call = ToolCall(ToolFunction("get_weather", {"city": "Zürich"}))
    messages = [
        Message("user", "Weather?"),
        Message("assistant", tool_calls=[call, call]),
        Message("tool", "rain"),
        Message("tool", "sun"),
    ]
    text = prompt_text(Example("tools", "result", Prompt(messages=messages), Message("assistant")))
    written = '<tool_call>{"name": "get_weather", "arguments": {"city": "Zürich"}}</tool_call>'
    assert f"<|im_start|>assistant\n{written}\n{written}<|im_end|>\n" in text
    results = "<tool_response>rain</tool_response>\n<tool_response>sun</tool_response>"
    assert f"<|im_start|>user\n{results}<|im_end|>\n" in text


def test_an_answer_ends_as_its_prompt_asks():
    raw = Example("story", "raw", Prompt(raw="Once"), Message("assistant", " upon a time."))
    assert prompt_text(raw) + answer_text(raw) == "Once upon a time.<|endoftext|>"
    thought = example(
        ("user", "Hi"), answer=Message("assistant", "Hello!", "A greeting."), think=True
    )
    assert answer_text(thought) == "<think>\nA greeting.\n</think>\n\nHello!<|im_end|>"
    assert split_thinking(answer_text(thought)) == ("A greeting.", "Hello!<|im_end|>")
    assert split_thinking("No thought.") == ("", "No thought.")


def called(arguments):
    return f'<tool_call>{{"name":"add","arguments":{arguments}}}</tool_call>'


CALLED = Message("assistant", tool_calls=[ToolCall(ToolFunction("add", {"a": 1, "b": 2}))])


@pytest.mark.parametrize(
    ("rule", "answer", "content", "right"),
    [
        ("same text", Message("assistant", "Yes."), " Yes.\n", True),
        ("same text", Message("assistant", "Yes."), "Yes", False),
        ("same object", Message("assistant", '{"a": 1, "b": 2}'), '{"b": 2, "a": 1}', True),
        ("same object", Message("assistant", '{"a": 1}'), '{"a": "1"}', False),
        ("same object", Message("assistant", '{"a": 1}'), '{"a": true}', False),
        ("same object", Message("assistant", '{"a": 1}'), "no json", False),
        ("same object", Message("assistant", '{"a": 1}'), 'Here: {"a": 1}', False),
        (
            "same calls",
            CALLED,
            '<tool_call>{"name":"add","arguments":{"b":2,"a":1}}</tool_call>',
            True,
        ),
        ("same calls", CALLED, '<tool_call>{"name":"add","arguments":{"b":2}}</tool_call>', False),
        ("same calls", CALLED, called('{"a":1,"b":2}'), True),
        ("same calls", CALLED, called('{"a":true,"b":2}'), False),
        ("same calls", CALLED, 2 * called('{"a":1,"b":2}'), False),
        ("same calls", CALLED, "It is 3. " + called('{"a":1,"b":2}'), False),
        ("same calls", CALLED, called('{"a":1,"b":2}') + '<tool_call>{"name":', False),
        ("same calls", CALLED, "1 + 2 = 3", False),
        ("same calls", Message("assistant", "Hi!"), "Hi!", True),
        ("story", Message("assistant"), "He ran. She sat. They slept.", True),
        ("story", Message("assistant"), "He ran. He ran. He ran.", False),
        ("story", Message("assistant"), "He ran. She sat. They sl", False),
        ("story", Message("assistant"), "", False),
    ],
)
def test_what_counts_as_right(rule, answer, content, right):
    assert is_right(example(("user", "?"), answer=answer, rule=rule), "", content) == right


def test_every_text_must_be_mentioned():
    asked = Example("s", "f", Prompt(), Message("assistant"), "mentions", ("Rayleigh", "blue"))
    assert is_right(asked, "", "It is BLUE by rayleigh scattering.")
    assert not is_right(asked, "", "It is blue.")


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ("The result is 4.", True),
        ("4", True),
        ("(4, as a number)", True),
        ("The result is 42.", False),
        ("The result is 4.5.", False),
        ("The result is 3.4", False),
        ("The result is 1,4", False),
        ("The result is x4.", False),
    ],
)
def test_what_is_mentioned_is_no_part_of_a_longer_word_or_number(content, right):
    asked = Example("s", "f", Prompt(), Message("assistant"), "mentions", ("4",))
    assert is_right(asked, "", content) == right


@pytest.mark.parametrize(("expected", "thought", "right"), [("", "Hm.", False), ("Hm.", "", False)])
def test_thinking_is_there_if_and_only_if_it_was_asked_for(expected, thought, right):
    asked = example(("user", "?"), answer=Message("assistant", "Yes.", expected))
    assert is_right(asked, thought, "Yes.") == right
