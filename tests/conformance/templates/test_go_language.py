"""What the whole language does: Go's own answers to templates that try each of its corners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import GoRenderer

_VECTORS = Path(__file__).parents[2] / "vectors" / "go-language.jsonl"
_HEAD, *_CASES = [json.loads(line) for line in _VECTORS.read_text().strip().split("\n")]
_PROMPT = Prompt(
    messages=msgspec.convert(_HEAD["request"]["messages"], list[Message]),
    tools=_HEAD["request"]["tools"],
    think=_HEAD["request"]["think_level"],
)


def _answer(source: str, prompt: Prompt = _PROMPT) -> str:
    try:
        renderer = GoRenderer(source)
    except TemplateFailed as reason:
        return f"parse: {reason.message}"
    try:
        return renderer.render(prompt)
    except TemplateFailed as reason:
        return f"execute: {reason.message}"


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["template"][:60])
def test_the_output_or_error_is_that_of_go(case: dict[str, Any]) -> None:
    assert _answer(case["template"]) == case.get("error", case.get("output"))


def test_a_number_that_is_none_in_go_is_shown_all_the_same() -> None:
    call = ToolCall(ToolFunction("f", {"x": 10**400}))
    prompt = Prompt(messages=[Message("assistant", "", tool_calls=[call])])
    source = (
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments.x }}{{ end }}{{ end }}"
    )
    assert _answer(source, prompt) == "+Inf"


def test_tools_that_are_described_wrongly_do_not_stop_the_render() -> None:
    tools: list[Any] = [{"function": {"parameters": {"properties": {"a": 3}, "required": "a"}}}, 7]
    prompt = Prompt(messages=[Message("user", "x")], tools=tools)
    empty = '"function":{"name":"","description":"","parameters":{"type":"","properties":'
    assert _answer("{{ .Tools }}{{ with .Messages }}{{ end }}", prompt) == (
        f'[{{"type":"",{empty}{{"a":{{}}}}}}}}}},{{"type":"",{empty}{{}}}}}}}}]'
    )


def test_templates_of_cases_are_unique() -> None:
    assert len({case["template"] for case in _CASES}) == len(_CASES)
