"""What one rendering of a Go template has used up, or left half done, is no other's."""

from __future__ import annotations

import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat import render_budget
from ollama_async.prompts.go_renderer import GoRenderer

_CALLS = [
    Message("user", "Ask1"),
    Message("assistant", tool_calls=[ToolCall(ToolFunction("f", {"place": "Juist"}))]),
    Message("tool", "Ebb1", tool_name="f"),
]
_KNOWN_ROLES = '{{ if or (eq .Role "user") (eq .Role "assistant") }}{{ .Content }}'
_DEPTH = 40


def _text(renderer: GoRenderer, *messages: Message) -> str:
    return renderer.render(Prompt(messages=list(messages)))


def _template(strange: str) -> str:
    """It does ``strange`` for a role that it does not know, and shows neither calls nor results."""
    others = f'{{{{ else if ne .Role "tool" }}}}{strange}{{{{ end }}}}'
    return f"{{{{ range .Messages }}}}{_KNOWN_ROLES}{others}{{{{ end }}}}"


@pytest.mark.parametrize(
    "failing",
    [
        "{{ if true }}" * _DEPTH + "{{ index .Content 1000 }}" + "{{ end }}" * _DEPTH,
        "{{ " + "(print " * _DEPTH + "(index .Content 1000)" + ")" * _DEPTH + " }}",
    ],
    ids=["blocks", "parentheses"],
)
def test_roles_that_the_template_fails_for_change_nothing_for_calls(failing: str) -> None:
    renderer = GoRenderer(_template(failing))
    for number in range(20):
        assert _text(renderer, Message("user", "a"), Message(f"role{number}", "b")) == "ab"

    text = _text(renderer, *_CALLS)

    assert all(word in text for word in ("Ask1", "Juist", "Ebb1"))


def test_a_slow_probe_leaves_time_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render_budget, "STEPS_LIMIT", 500)
    renderer = GoRenderer(_template("{{ range 1000 }}{{ end }}"))
    strange = Message("critic", "b")
    assert _text(renderer, Message("user", "a"), strange) == "ab"

    text = _text(renderer, *_CALLS)

    assert all(word in text for word in ("Ask1", "Juist", "Ebb1"))


def test_a_failed_shape_leaves_the_next_its_depth() -> None:
    failing = "{{ if true }}" * 80 + "{{ index .Content 1000 }}" + "{{ end }}" * 80
    refuses = "{{ if eq .Content `bad` }}" + failing + "{{ end }}"
    renderer = GoRenderer("{{ range .Messages }}{{ .Content }}" + refuses + "{{ end }}")
    messages = [Message("user", "bad"), Message("assistant", "a"), Message("user", "b")] * 3

    with pytest.raises(TemplateFailed, match=r"^message 1 \(user\): template: .* out of range"):
        _text(renderer, *messages)
