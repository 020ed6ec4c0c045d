"""Broken, deep and large input of renderers."""

import tracemalloc

import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.renderers import NAMES, named
from tests.unit.prompts.renderers.rendering import assistant, call, render, tool, user


@pytest.mark.parametrize(
    "tools",
    [
        [{}],
        [{"function": None}],
        [{"function": {"name": 5, "description": [], "parameters": "x"}}],
        [{"function": {"name": "f", "parameters": {"properties": [], "required": {"a": 1}}}}],
        [{"function": {"name": "f", "parameters": {"properties": {"a": None, "b": {"type": 1}}}}}],
        [{"name": "without_wrapping", "parameters": {"type": ["object", 3]}}],
        [{"function": {"name": "{0}%s{name}", "description": "{tools}", "parameters": {}}}],
    ],
)
def test_tools_of_wrong_shapes_are_rendered_as_far_as_they_go(tools):
    for name in NAMES:
        assert "ask" in render(name, user(), tools=tools), name


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = {"properties": {"p": value}} if isinstance(value, dict) else {"p": value}
    return value


@pytest.mark.parametrize("name", ["cogito", "gemma4"])
def test_json_that_is_nested_too_deep_is_refused(name):
    deep = nested(50 * TOOL_DEPTH)

    with pytest.raises(TemplateFailed, match="levels of JSON"):
        render(name, user(), tools=[tool(**deep)])
    with pytest.raises(TemplateFailed, match="levels of JSON"):
        render(name, user(), assistant("", call("f", deep=deep)))


@pytest.mark.parametrize("name", NAMES)
def test_json_that_is_nested_as_deep_as_allowed_is_rendered(name):
    inner = nested((TOOL_DEPTH - 10) // 2)

    assert "ask" in render(name, user(), tools=[tool(**inner)])


@pytest.mark.parametrize("many", [["x" * 1000] * 10_000, [0] * 2_000_000])
def test_arguments_that_are_too_large_are_refused(many):
    with pytest.raises(TemplateFailed, match="too large"):
        render("cogito", user(), assistant("", call("f", many=many)))


@pytest.mark.parametrize("name", ["cogito", "gemma4"])
def test_what_is_too_large_is_refused(name):
    with pytest.raises(TemplateFailed, match="too large"):
        render(name, user("x" * (9 << 20)))
    with pytest.raises(TemplateFailed, match="too large"):
        render(name, user(), tools=[tool(number=10**5000)])


def test_how_much_there_is_shows_before_it_is_looked_through():
    many = [0] * 4_000_000
    prompt = Prompt(messages=[Message("user", "ask")], tools=[{"many": many}])

    tracemalloc.start()
    with pytest.raises(TemplateFailed, match="too large"):
        named("cogito").render(prompt)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1 << 20
