"""Every chat template that llama.cpp carries renders what it is made for.

``scripts/chat_templates.py`` fetches them; the test command does.
"""

import os

import pytest

from ollama_async.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.engine import build
from ollama_async.prompts.jinja import JinjaRenderer

FOLDER = build.cache_folder() / "templates" / f"{build.DISTRIBUTION}-{build.VERSION}"
NAMES = sorted(path.name for path in FOLDER.glob("*.jinja"))

SYSTEM = Message("system", "Be kind to sailors.")
USER = Message("user", "What is the tide?")
CALL = ToolCall(ToolFunction("get_tide", {"place": "Norderney", "days": 2}), id="call_9f8e7d6c")
CALLING = Message("assistant", tool_calls=[CALL])
RESULT = Message("tool", "flood at noon", tool_name="get_tide", tool_call_id=CALL.id)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_tide",
            "description": "The tide at a place",
            "parameters": {
                "type": "object",
                "required": ["place"],
                "properties": {
                    "place": {"type": "string", "description": "Where"},
                    "days": {"type": "integer"},
                },
            },
        },
    }
]
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
    renderer = JinjaRenderer((FOLDER / name).read_text(), bos="<s>", eos="</s>")

    for prompt in CONVERSATIONS.values():
        text = renderer.render(prompt)
        assert [word for word in said(prompt) if word not in text] == []


@pytest.mark.parametrize("name", sorted({*THINKING} & {*NAMES}))
def test_a_wish_to_think_changes_the_prompt(name):
    renderer = JinjaRenderer((FOLDER / name).read_text(), bos="<s>", eos="</s>")

    wished, refused = (renderer.render(CONVERSATIONS[wish]) for wish in ("thinking", "no thinking"))

    assert wished != refused
