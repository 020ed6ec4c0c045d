"""What Go and Ollama answered on the same templates and requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import GoRenderer, parse_template

_VECTORS = Path(__file__).parents[2] / "vectors" / "go-templates.jsonl"
_CASES = [json.loads(line) for line in _VECTORS.read_text().strip().split("\n")]
_NAMING = [case for case in _CASES if "vars" in case]


def _prompt(request: dict[str, Any]) -> Prompt:
    think: bool | str | None = None
    if request.get("is_think_set"):
        think = request.get("think_level") or request.get("think", False)
    messages = msgspec.convert(request["messages"], list[Message])
    return Prompt(messages=messages, tools=request.get("tools", []), think=think)


def _answer(case: dict[str, Any]) -> str:
    try:
        renderer = GoRenderer(case["template"])
    except TemplateFailed as reason:
        return f"parse: {reason.message}"
    try:
        return renderer.render(_prompt(case["request"]))
    except TemplateFailed as reason:
        return f"execute: {reason.message}"


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["name"])
def test_the_output_or_error_is_that_of_go(case: dict[str, Any]) -> None:
    assert _answer(case) == (case.get("error") or case["output"])


@pytest.mark.parametrize("case", _NAMING, ids=lambda case: case["name"])
def test_finds_the_same_names(case: dict[str, Any]) -> None:
    assert parse_template(case["template"]).variables == set(case["vars"])


def test_names_of_cases_are_unique() -> None:
    assert len({case["name"] for case in _CASES}) == len(_CASES)
