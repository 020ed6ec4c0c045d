"""The three ways of running a template, and the turns of a conversation in each."""

from __future__ import annotations

import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import GoRenderer

_TALK = [
    Message("user", "a"),
    Message("user", "b"),
    Message("assistant", "c"),
    Message("system", "s"),
    Message("user", "d"),
]


def _render(source: str, messages: list[Message]) -> str:
    return GoRenderer(source).render(Prompt(messages=messages))


def test_neighbours_of_one_role_are_one_turn() -> None:
    source = "{{ range .Messages }}[{{ .Role }} {{ .Content }}]{{ end }}"
    assert _render(source, _TALK) == "[user a\n\nb][assistant c][system s][user d]"


def test_results_of_tools_stay_apart() -> None:
    results = [Message("tool", "1"), Message("tool", "2")]
    assert _render("{{ range .Messages }}[{{ .Content }}]{{ end }}", results) == "[1][2]"


def test_messages_are_not_changed_by_merging_them() -> None:
    messages = [Message("user", "a"), Message("user", "b")]
    _render("{{ .Messages }}", messages)
    assert [message.content for message in messages] == ["a", "b"]


def test_a_template_without_messages_is_run_for_every_turn() -> None:
    source = "<{{ .System }}|{{ .Prompt }}|{{ .Response }}>"
    assert _render(source, _TALK) == "<|a\n\nb|c><s|d|"


def test_an_answer_that_is_begun_goes_on_where_it_ends() -> None:
    messages = [Message("user", "q"), Message("assistant", "It is")]
    assert _render("{{ .Prompt }}: {{ .Response }}</s>", messages) == "q: It is"


def test_a_place_for_the_answer_is_added_where_there_is_none() -> None:
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert _render("Q: {{ .Prompt }} A: ", messages) == "Q: a A: bQ: c A: "


def test_the_other_branch_of_a_condition_around_the_answer_is_cut() -> None:
    source = "{{ .Prompt }}{{ if .Prompt }}{{ .Response }}{{ else }}x{{ end }}y"
    assert _render(source, [Message("user", "q")]) == "q"


def test_functions_and_definitions_work_in_the_last_turn_too() -> None:
    source = '{{ define "j" }}{{ json . }}{{ end }}{{ template "j" .Prompt }}{{ .Response }}'
    assert _render(source, [Message("user", "q")]) == '"q"'


def test_a_suffix_makes_a_hole() -> None:
    renderer = GoRenderer("<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ .Response }}")
    prompt = Prompt(messages=[Message("user", "def f")], suffix="return")
    assert renderer.render(prompt) == "<PRE>def f<SUF>return<MID>"


@pytest.mark.parametrize(
    ("think", "shown"),
    [
        (None, "false||false"),
        (False, "false||true"),
        (True, "true|medium|true"),
        ("high", "true|high|true"),
    ],
)
def test_thinking(think: bool | str | None, shown: str) -> None:
    renderer = GoRenderer("{{ .Think }}|{{ .ThinkLevel }}|{{ .IsThinkSet }}{{ .Messages }}")
    prompt = Prompt(think=think)
    assert renderer.render(prompt) == f"{shown}[]"


def test_another_template_requires_an_argument() -> None:
    with pytest.raises(TemplateFailed, match="undefined template specified"):
        GoRenderer('{{ define "a" }}{{ end }}{{ template "a" }}')
