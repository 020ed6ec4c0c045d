"""Every text of a conversation reaches the prompt of a Go template, and an answer that was begun
goes on.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.known_templates import KNOWN_TEMPLATES
from tests.unit.prompts.conversation_shapes import (
    PREFILLS,
    SHAPES,
    Shape,
    lost,
    misplaced,
    rows,
)

_WITH_TOOLS = """
{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- range .Tools }}
{{ .Function }}
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}
{{- range .ToolCalls }}<tool_call>{{ .Function.Name }} {{ .Function.Arguments }}</tool_call>
{{ end }}
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<tool_response>{{ .Content }}</tool_response>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""
TEMPLATES = {known.name: known.template for known in KNOWN_TEMPLATES} | {"tools": _WITH_TOOLS}


@cache
def _renderer_of(name: str) -> GoRenderer:
    return GoRenderer(TEMPLATES[name])


def shapes_for(name: str, shapes: dict[str, Shape]) -> dict[str, Shape]:
    """Tools are offered only to templates that have a place for them."""
    return {
        key: shape for key, shape in shapes.items() if name == "tools" or not shape.offers_tools
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_conversations_of_every_shape_reach_the_model_whole_and_in_order(name: str) -> None:
    renderer = _renderer_of(name)
    for shape_name, shape in shapes_for(name, SHAPES).items():
        text = renderer.render(shape.prompt())
        assert lost(shape.messages, text) == [], shape_name
        assert misplaced(shape.messages, text) == [], shape_name


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_that_was_begun_goes_on(name: str) -> None:
    renderer = _renderer_of(name)
    for shape_name, shape in shapes_for(name, PREFILLS).items():
        text = renderer.render(shape.prompt())
        assert lost(shape.messages, text) == [], shape_name
        assert text.endswith(shape.messages[-1].content), shape_name


@pytest.mark.slow
@settings(max_examples=100)
@given(messages=rows())
def test_no_row_of_messages_loses_a_text(messages: list[Message]) -> None:
    text = _renderer_of("tools").render(Prompt(messages=messages))
    assert lost(messages, text) == []
    assert misplaced(messages, text) == []


def test_text_before_a_call_gets_its_own_turn_if_the_template_shows_one_of_them() -> None:
    call = ToolCall(ToolFunction("f", {"k": "v"}))
    messages = [
        Message("user", "u"),
        Message("assistant", "wait", tool_calls=[call]),
        Message("tool", "r"),
    ]
    assert GoRenderer(_WITH_TOOLS).render(Prompt(messages=messages)) == (
        "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\nwait<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>f {"k":"v"}</tool_call>\n<|im_end|>\n'
        "<tool_response>r</tool_response>\n<|im_start|>assistant\n"
    )


def test_calls_of_neighbours_are_all_shown() -> None:
    calls = [Message("assistant", tool_calls=[ToolCall(ToolFunction(name))]) for name in "fg"]
    text = GoRenderer(_WITH_TOOLS).render(Prompt(messages=[Message("user", "u"), *calls]))
    assert "<tool_call>f {}</tool_call>\n<tool_call>g {}</tool_call>" in text


@pytest.mark.parametrize("source", ["{{ .Prompt }}", "{{ .Prompt }}{{ .Response }}"])
def test_a_template_that_completes_text_leaves_the_system_out_as_in_ollama(source: str) -> None:
    messages = [Message("system", "s"), Message("user", "u")]
    assert GoRenderer(source).render(Prompt(messages=messages)) == "u"


def test_a_failure_names_the_message() -> None:
    source = (
        '{{ range .Messages }}{{ if eq .Content "bad" }}{{ index .Content 9 }}{{ end }}{{ end }}'
    )
    shown = source.replace("{{ range .Messages }}", "{{ range .Messages }}{{ .Content }}")
    messages = [Message("user", "a"), Message("assistant", "bad"), Message("user", "b")]
    with pytest.raises(TemplateFailed, match=r"^message 2 \(assistant\): template: "):
        GoRenderer(shown).render(Prompt(messages=messages))
