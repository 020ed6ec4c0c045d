"""Whatever a template says: text or TemplateFailed, and soon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat import render_budget
from ollama_async.gocompat.template.lex import EOF, ERROR, lex
from ollama_async.prompts.go_renderer import GoRenderer, summarize

_CALL = ToolCall(ToolFunction("f", {"a": [1, {"b": None}], "c": "é"}), "id")
_PROMPT = Prompt(
    messages=[Message("user", "q"), Message("assistant", "é", tool_calls=[_CALL])],
    tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    think=True,
)


def _answer(source: str, prompt: Prompt = _PROMPT) -> str:
    """The text, or the error's; both must be fit to be sent."""
    try:
        summarize(source)
        text = GoRenderer(source).render(prompt)
    except TemplateFailed as reason:
        text = reason.message
    text.encode()
    return text


_OPERANDS = (
    ". $ $x .Messages .Tools .System .Nope nil true 1 -2 1.5 1i `%v|%q` `%5.2d%[2]*d` '\\t' 0x1p4 "
    '"a\\xff" (len) (index,$.Messages,1) (index,$.Messages,1).ToolCalls .Function.Arguments 3'
)
_FUNCTIONS = (
    "and or not len index slice print printf println html js urlquery eq ne lt le gt ge json call "
    "currentDate toTypeScriptType"
)
_MARKS = (
    "{{ }} {{- -}} ( ) | , := = if else end range with define template block break continue "
    "/* */ é \u2028 \n"
)
_words = st.sampled_from(f"{_OPERANDS} {_FUNCTIONS} {_MARKS}".split(" "))
_operand = st.sampled_from([text.replace(",", " ") for text in _OPERANDS.split(" ")])
_function = st.sampled_from(_FUNCTIONS.split(" "))
_command = _operand | st.tuples(_function, _operand, _operand).map(" ".join)
_pipeline = st.lists(_command, min_size=1, max_size=3).map(" | ".join)


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    branch = "{{{{ {} {} }}}}{}{{{{ else }}}}{}{{{{ end }}}}".format
    word = st.sampled_from(["if", "with", "range", "range $k, $x :="])
    return st.builds(branch, word, _pipeline, inner, inner) | st.tuples(inner, inner).map("".join)


_template = st.recursive(
    _pipeline.map("{{{{ {} }}}}".format)
    | _pipeline.map("{{{{ $x := {} }}}}".format)
    | st.text(max_size=5),
    _blocks,
    max_leaves=8,
)


@given(st.lists(_words, max_size=30), st.sampled_from(["", " "]))
@settings(deadline=None)
def test_words_in_any_order(words: list[str], between: str) -> None:
    _answer(between.join(words))


@given(_template)
@settings(deadline=None)
def test_templates_that_parse(source: str) -> None:
    _answer("{{ $x := .Messages }}" + source)


@given(st.text())
@settings(deadline=None)
def test_any_text(source: str) -> None:
    _answer(source)


@given(st.lists(_words, max_size=30).map("".join) | st.text())
def test_tokens_are_pieces_of_the_source_in_order(source: str) -> None:
    tokens = lex(source)
    assert tokens[-1].kind in (EOF, ERROR)
    end = 0
    for token in tokens[:-1]:
        assert token.at >= end
        assert source.startswith(token.text, token.at)
        end = token.at + len(token.text)


@given(st.lists(st.sampled_from(["{{1}}", '{{.A.B|print `x` "y"}}', " a ", "\n"])))
def test_tokens_of_a_template_without_trimming_are_all_of_it(pieces: list[str]) -> None:
    source = "".join(pieces)
    tokens = lex(source)
    assert tokens[-1].kind == EOF
    assert "".join(token.text for token in tokens[:-1]) == source


_DOUBLED = '{{ $x := "é<" }}{{ range 19 }}{{ $x = print $x $x }}{{ end }}{{ range 1000000 }}'


@pytest.mark.parametrize(
    "source",
    [
        "{{ range 1000000000 }}{{ end }}",
        "{{ range 100000 }}{{ range 100000 }}{{ if 1 }}{{ end }}{{ end }}{{ end }}",
        '{{ $x := "a" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}',
        *(
            f"{_DOUBLED}{{{{ if {call} }}}}{{{{ end }}}}{{{{ end }}}}"
            for call in (
                "len $x",
                "index $x 1",
                "slice $x 1",
                "lt $x $x",
                "eq $x (print $x)",
                "html $x",
                "js $x",
                "urlquery $x",
                "json $x",
                'printf "%q" $x',
                'printf "%x" $x',
            )
        ),
        '{{ range 10000000 }}{{ if printf "%999999d" 1 }}{{ end }}{{ end }}',
        '{{ range 10000000 }}{{ if printf "%.999999f" 1.5 }}{{ end }}{{ end }}',
        "{{ printf `" + "%999999d" * 10_000 + "` }}",
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        "{{ if 1 }}" * 10_000,
        "{{ if 1 }}" * 99 + "x" + "{{ end }}" * 99,
        "{{ if 0 }}" + "{{ else if 0 }}" * 5_000 + "{{ end }}",
        "{{ " + "(" * 10_000,
        "{{ " + "(" * 49 + "1" + ")" * 49 + " }}",
        "{{ 1" + "|print" * 10_000 + " }}",
        '{{ "' + "\\" * 100_000,
        "".join(f"{{{{ $x{i} := 1 }}}}" for i in range(3000)) + "{{ $x0 }}" * 3000,
        "{{ " + "9" * 100_000 + " }}",
        "{{ " + ".a" * 100_000 + " }}",
        ("a" + " " * 900) * 100 + "{{- 1 }}",
        "{{- " * 20_000,
        "{{1}}" * 20_000,
        "x" * (1 << 19),
    ],
    ids=lambda source: source[:30],
)
@pytest.mark.slow
def test_every_template_ends_soon(source: str) -> None:
    """The time limit of the tests is what fails here."""
    assert _answer(source)


@pytest.fixture
def _short_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_budget, "STEPS_LIMIT", 200)


@pytest.mark.usefixtures("_short_of_steps")
@pytest.mark.parametrize(
    "body",
    [
        "{{ range 1000 }}{{ end }}",
        '{{ if len (printf "%9999d" 1) }}{{ end }}',
        "{{ range 10 }}{{ range 30 }}{{ end }}{{ end }}",
    ],
)
def test_steps_are_counted(body: str) -> None:
    assert _answer(body) == "the template takes too long to render"


def test_data_nested_too_deeply_is_an_error() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    call = ToolCall(ToolFunction("f", {"x": deep}))
    prompt = Prompt(messages=[Message("assistant", "", tool_calls=[call])])
    answer = _answer("{{ range .Messages }}{{ .ToolCalls }}{{ end }}", prompt)
    assert answer == "the messages are nested too deeply for the template"


def test_a_chain_as_long_as_allowed() -> None:
    source = "{{ if 0 }}" + "{{ else if 0 }}" * 98 + "{{ else }}x{{ end }}{{ .Prompt }}"
    assert _answer(source) == "xqé"


def test_nested_as_deeply_as_allowed() -> None:
    assert _answer("{{ if 1 }}" * 99 + "x" + "{{ end }}" * 99 + "{{ .Response }}") == "xé"
