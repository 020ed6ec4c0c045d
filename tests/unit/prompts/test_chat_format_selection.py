"""Which of two templates is in force, by Ollama's rules."""

import pytest

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.prompts.chat_format import go_abilities, jinja_abilities, select

PLAIN = "{{ range .Messages }}{{ .Content }}{{ end }}"
TOOLS = "{{ .Tools }}" + PLAIN
ROUND_TRIP = (
    '{{ .Tools }}{{ range .Messages }}{{ if eq .Role "tool" }}{{ end }}{{ .ToolCalls }}{{ end }}'
)
THINKS = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}"
HARMONY = "<|start|>" + PLAIN + "<|end|>"

J_PLAIN = "{{ messages }}"
J_TOOLS = "{{ tools }}"
J_BOTH = J_TOOLS + "<think></think>"
J_ROUND_TRIP = "{{ tools }}{{ tool_calls }}{% if message['role'] == 'tool' %}{% endif %}"


@pytest.mark.parametrize(
    ("spec", "jinja", "selection"),
    [
        (ChatFormatSpec(renderer="r", parser="p", template=PLAIN), J_BOTH, "renderer_parser"),
        (ChatFormatSpec(renderer="r"), "", "renderer"),
        (ChatFormatSpec(parser="p", template=PLAIN), J_BOTH, "parser"),
        (ChatFormatSpec(template=HARMONY, family="gptoss"), J_BOTH, "harmony"),
        (ChatFormatSpec(template=HARMONY, family="gpt-oss"), J_BOTH, "harmony"),
        (ChatFormatSpec(template=HARMONY, family="llama"), "", "go_template"),
        (ChatFormatSpec(template=PLAIN), "", "go_template"),
        (ChatFormatSpec(), J_PLAIN, "gguf_chat_template"),
        (ChatFormatSpec(), "", "none"),
        # what can do more
        (ChatFormatSpec(template=PLAIN), J_PLAIN, "go_template"),
        (ChatFormatSpec(template=PLAIN), J_TOOLS, "gguf_chat_template"),
        (ChatFormatSpec(template=TOOLS), J_PLAIN, "go_template"),
        (ChatFormatSpec(template=TOOLS), J_TOOLS, "go_template"),
        (ChatFormatSpec(template=TOOLS), J_BOTH, "gguf_chat_template"),
        (ChatFormatSpec(template=ROUND_TRIP), J_BOTH, "go_template"),
        (ChatFormatSpec(template=ROUND_TRIP), J_BOTH + J_ROUND_TRIP, "gguf_chat_template"),
        # the same, but one shows what tools answered
        (ChatFormatSpec(template=TOOLS), J_ROUND_TRIP, "gguf_chat_template"),
        (ChatFormatSpec(template=ROUND_TRIP), J_ROUND_TRIP, "go_template"),
        (ChatFormatSpec(template=THINKS), J_ROUND_TRIP, "go_template"),
        (ChatFormatSpec(template="{{ broken"), J_TOOLS, "gguf_chat_template"),
        (ChatFormatSpec(template="{{ broken"), J_PLAIN, "go_template"),
    ],
)
def test_the_decision(spec, jinja, selection):
    assert select(spec, jinja) == selection


@pytest.mark.parametrize(
    ("prefers_go", "selection"), [(True, "go_template"), (False, "gguf_chat_template")]
)
def test_a_wish_decides_between_two_templates(prefers_go, selection):
    spec = ChatFormatSpec(template=TOOLS)

    assert select(spec, J_BOTH, prefers_go=prefers_go) == selection
    assert select(spec, J_PLAIN, prefers_go=prefers_go) == selection
    assert select(spec, "", prefers_go=prefers_go) == "go_template"
    assert select(ChatFormatSpec(), J_PLAIN, prefers_go=prefers_go) == "gguf_chat_template"


def test_a_wish_does_not_take_a_renderer_away():
    assert select(ChatFormatSpec(renderer="r"), J_PLAIN, prefers_go=False) == "renderer"


@pytest.mark.parametrize(
    ("template", "abilities"),
    [
        ("", set()),
        (PLAIN, set()),
        (TOOLS, {"tools"}),
        ("{{ if .Suffix }}{{ end }}", {"insert"}),
        (THINKS, {"thinking"}),
        ("{{ .Thinking }}", set()),
        ("text about .Tools and .Suffix", set()),
        ("{{ .Tools", set()),
    ],
)
def test_what_a_go_template_can_do(template, abilities):
    assert go_abilities(template) == abilities


@pytest.mark.parametrize(
    ("template", "abilities"),
    [
        (J_PLAIN, set()),
        (J_TOOLS, {"tools"}),
        ("{{ m.tool_calls }}", {"tools"}),
        ("<think>", set()),
        ("<think></think>", {"thinking"}),
        ("{{ m.content.split('</think>')[-1] }}", {"thinking"}),
        ('{{ m.content.split( "</think>")[-1] }}', {"thinking"}),
        ("{{ m.content.split('</think>') }}{{ m.reasoning_content }}", set()),
        ("{{ m.content.split('</think>') }}<SPECIAL_12>", set()),
    ],
)
def test_what_a_jinja_template_can_do(template, abilities):
    assert jinja_abilities(template) == abilities
