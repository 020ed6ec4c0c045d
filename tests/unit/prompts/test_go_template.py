from __future__ import annotations

import pytest

from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import parse_template, summarize

_THINKING = """
{{- range $i, $_ := .Messages }}{{ if eq .Role "assistant" }}
{{- if (and $.IsThinkSet .Thinking) -}}
<think>{{ .Thinking }}</think>
{{ end }}{{ .Content }}{{ end }}{{ end }}"""

_TOOLS = """{{- range .Messages }}{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}{{ range .ToolCalls }}
<tool_call> {"name": "{{ .Function.Name }}"}</tool_call>{{ end }}{{ end }}
{{- if eq .Role "tool" }}<tool_response>{{ .Content }}</tool_response>{{ end }}{{ end }}"""


def test_what_a_template_mentions() -> None:
    found = parse_template(
        "{{ range $i, $m := .Messages }}{{ $m.Role }}{{ (index .A 0).B }}{{ end }}"
    )
    assert found.variables == {"messages", "$m", "role"}


def test_thinking_tags() -> None:
    assert summarize(_THINKING).thinking_tags == ("<think>", "</think>")


@pytest.mark.parametrize(
    "source",
    [
        "{{ .Messages }}",
        "{{ range .Messages }}{{ .Thinking }}{{ end }}",
        "{{ range .Messages }}<a>{{ .Thinking }}{{ end }}",
        "{{ range .Others }}<a>{{ .Thinking }}</a>{{ end }}",
        "<a>{{ .Thinking }}</a>",
    ],
)
def test_no_thinking_tags(source: str) -> None:
    assert summarize(source).thinking_tags is None


@pytest.mark.parametrize(
    ("source", "tag"),
    [
        (_TOOLS, "<tool_call>"),
        ("{{ .Prompt }}", "{"),
        ("{{ if .ToolCalls }}{{ end }}", "{"),
        ('{{ if .ToolCalls }} {"a": 1}{{ end }}', "{"),
        ("{{ if .ToolCalls }}\n{{ range .ToolCalls }}[CALL] {{ . }}{{ end }}{{ end }}", "[CALL]"),
        ("{{ if .ToolCalls }}{{ .Content }}[CALL]{{ end }}", "{"),
        ("{{ with .A }}{{ else }}{{ if or .A .ToolCalls }}[A]{{ end }}{{ end }}", "[A]"),
    ],
)
def test_tool_tag(source: str, tag: str) -> None:
    assert summarize(source).tool_tag == tag


def test_round_trip() -> None:
    assert summarize("{{ .Tools }}" + _TOOLS).tool_round_trip
    assert not summarize(_TOOLS).tool_round_trip
    calls = summarize("{{ .Tools }}{{ range .Messages }}{{ .ToolCalls }}{{ end }}")
    assert not calls.tool_round_trip


def test_tools_and_insert() -> None:
    both = summarize("{{ if .Suffix }}{{ .Suffix }}{{ end }}{{ range $.Tools }}{{ end }}")
    assert both.tools
    assert both.insert
    neither = summarize("{{ .Prompt }}")
    assert not neither.tools
    assert not neither.insert


def test_parsing_raises_the_error_of_go() -> None:
    parse_template("{{ .Prompt }}")
    with pytest.raises(TemplateFailed, match=r'^template: :1: function "x" not defined$'):
        parse_template("{{ x }}")
