"""The models of the client tests, besides those of the package.

Scripted models say what no tiny model says reliably. Models with random weights take images and
recordings, and answer with nonsense.
"""

from __future__ import annotations

import json
from typing import Any, Literal


def call(name: str, **arguments: object) -> str:
    """A tool call as Qwen's models write it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>\n"


def speaker(*tokens: str, **more: object) -> dict[str, Any]:
    """A model that may think and call."""
    return {
        "tokens": list(tokens),
        "template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ",
        "parser": "qwen3",
        "capabilities": ["tools", "thinking"],
        **more,
    }


PARIS = call("get_weather", city="Paris")
ROME = call("get_weather", city="Rome")

SCRIPTS = {
    # an answer of five words
    "story": speaker("Once ", "upon ", "a ", "time ", "there", capabilities=[], parser=""),
    # an answer without an end, five hundred words a second
    "endless": speaker("and ", "so ", "on ", repeat=True, tokens_per_second=500, parser=""),
    # one call, and two at once
    "calls": speaker(call("get_current_weather", city="Paris")),
    "two-calls": speaker(PARIS, ROME),
    # calls whose arguments are lists and numbers
    "validates": speaker(
        call(
            "validate_user",
            user_id=123,
            addresses=["123 Fake St, Boston, MA", "234 Pretend Boulevard, Houston, TX"],
        )
    ),
    # an object: as text, and as calls of the tools by which clients ask for one
    "says-sky": speaker('{"morning": "orange", ', '"noon": "blue"}'),
    "calls-sky": speaker(call("Sky", morning="orange", noon="blue")),
    "calls-result": speaker(call("final_result", morning="orange", noon="blue")),
    # words before a call
    "talks-and-calls": speaker("I look ", "it up. ", PARIS),
    # thoughts, then a call, both as thinking models do
    "thinks-and-calls": speaker(
        "<think>", "They want ", "the weather.", "</think>", PARIS, parser="qwen3-thinking"
    ),
    # thoughts, then an answer
    "thinks": speaker(
        "<think>", "Two and ", "two.", "</think>", "It is ", "four.", parser="qwen3-thinking"
    ),
    # a model that does not do what it was asked for
    "refuses": speaker("I am ", "sorry, ", "but I ", "cannot ", "help ", "with that."),
    # scores a document by the words of the query in it
    "ranks": {"ranks": True},
    # say what they were sent, which shows what arrives at the model; one is for the middle of texts
    "echo": speaker(echo=True, parser=""),
    "fills": {
        "echo": True,
        "go_template": "{{ .Prompt }}{{ if .Suffix }}<here>{{ .Suffix }}{{ end }}",
        "capabilities": ["insert"],
    },
}

# die in the middle of an answer; one for each script, as a model that dies often is started later
for script in ("ollama", "openai", "responses", "anthropic", "node-ollama", "node-openai"):
    SCRIPTS[f"dies-{script}"] = speaker("Once ", "upon ", "a ", crash_at=2, parser="")

SENSES: dict[str, Literal["gemma3", "ultravox"]] = {"sees": "gemma3", "hears": "ultravox"}
"""Names, and the kinds of their projectors."""
