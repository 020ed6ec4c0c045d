"""Whatever a client sends becomes text in proportion to it, or is refused."""

import json
import re

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.renderers import NAMES, named

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELD = st.dictionaries(
    st.sampled_from(["type", "description", "enum", "items", "properties", "required", "nullable"])
    | TEXT,
    JSON,
    max_size=4,
)
SCHEMA = JSON | st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={"properties": st.dictionaries(TEXT, FIELD | JSON, max_size=3), "required": JSON},
)
TOOL = st.dictionaries(TEXT, JSON, max_size=2) | st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": TEXT | JSON}, optional={"parameters": SCHEMA})}
)
CALL = st.builds(
    ToolCall,
    st.builds(ToolFunction, TEXT, st.dictionaries(TEXT, JSON, max_size=3)),
    id=st.sampled_from(["", "1", "2"]),
)
MESSAGE = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    TEXT,
    thinking=TEXT,
    tool_calls=st.lists(CALL, max_size=2),
    tool_name=TEXT,
    tool_call_id=st.sampled_from(["", "1", "2"]),
)
PROMPT = st.builds(
    Prompt,
    messages=st.lists(MESSAGE, max_size=6),
    tools=st.lists(TOOL, max_size=2),
    think=st.sampled_from([None, True, False, "low", "medium", "high", "max"]),
    chat_format=st.builds(ChatFormatSpec, name=TEXT),
)

FIXED_LETTERS = 8_000
"""Instructions for tools and the like; the longest have some 3,000."""
LETTERS_FOR_ONE = 60


@pytest.mark.slow
@given(st.sampled_from(NAMES), PROMPT)
@settings(deadline=None)
def test_any_conversation_becomes_text_in_proportion_to_it(name, prompt):
    text = named(name).render(prompt)

    sent = len(json.dumps(msgspec.to_builtins(prompt)))
    assert len(text) <= FIXED_LETTERS + LETTERS_FOR_ONE * sent


@pytest.mark.slow
@given(st.sampled_from(NAMES), PROMPT)
@settings(deadline=None)
def test_texts_of_the_user_are_in_order(name, prompt):
    questions = [f"question {index}." for index, _ in enumerate(prompt.messages)]
    for message, question in zip(prompt.messages, questions, strict=True):
        if message.role == "user":
            message.content = question
    text = named(name).render(prompt)

    asked = [
        question
        for message, question in zip(prompt.messages, questions, strict=True)
        if message.role == "user"
    ]
    assert re.findall(r"question \d\.", text) == asked


@pytest.mark.slow
@given(st.sampled_from(NAMES), PROMPT)
@settings(deadline=None)
def test_every_text_is_there_once(name, prompt):
    texts = [f"text {index}." for index, _ in enumerate(prompt.messages)]
    for message, text in zip(prompt.messages, texts, strict=True):
        message.content = text
    rendered = named(name).render(prompt)

    assert sorted(re.findall(r"text \d\.", rendered)) == texts


@pytest.mark.slow
@given(st.sampled_from(NAMES), PROMPT)
@settings(deadline=None)
def test_rendering_leaves_the_conversation_as_it_was(name, prompt):
    before = msgspec.json.encode(prompt)
    renderer = named(name)

    assert renderer.render(prompt) == renderer.render(prompt)
    assert msgspec.json.encode(prompt) == before


@given(st.sampled_from(NAMES), TEXT)
@settings(deadline=None)
def test_a_role_that_does_not_exist_is_refused(name, role):
    assume(role not in {"system", "developer", "user", "assistant", "tool"})

    with pytest.raises(TemplateFailed, match="is none of"):
        named(name).render(Prompt(messages=[Message(role, "text")]))
