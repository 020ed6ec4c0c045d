"""What Go and Ollama answered on the same templates and requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollama_async.conversation import Message, Prompt
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.go.facts import facts
from ollama_async.prompts.go.renderer import GoRenderer

_VECTORS = Path(__file__).parents[3] / "vectors" / "go-templates.jsonl"
_CASES = [json.loads(line) for line in _VECTORS.read_text().strip().split("\n")]


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


@pytest.mark.parametrize("case", _CASES, ids=[case["name"] for case in _CASES])
def test_says_what_go_says(case: dict[str, Any]) -> None:
    assert _answer(case) == (case.get("error") or case["output"])


@pytest.mark.parametrize("case", [case for case in _CASES if "vars" in case])
def test_finds_the_same_names(case: dict[str, Any]) -> None:
    assert facts(case["template"]).variables == set(case["vars"])
