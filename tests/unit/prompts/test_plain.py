"""Models without a template."""

import pytest

from ollama_async.conversation import Message, Prompt
from ollama_async.prompts.plain import PlainRenderer


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("system", "s"), ("user", "why?")], "why?"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "abc"),
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "a\n\nbc"),
        ([("user", "a"), ("system", "s"), ("user", "b")], "a\n\nb"),
        ([("system", "s")], ""),
        ([], ""),
    ],
)
def test_the_contents_follow_each_other(messages, text):
    prompt = Prompt(messages=[Message(role, content) for role, content in messages])

    assert PlainRenderer().render(prompt) == text
