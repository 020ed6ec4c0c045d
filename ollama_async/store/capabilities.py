"""What a model can do, in Ollama's words: read from its file, its projectors and its templates."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.gguf.summary import ModelFacts
from ollama_async.prompts import parsers
from ollama_async.prompts.chat_format import (
    HARMONY_FAMILIES,
    Selection,
    format_name,
    go_abilities,
    jinja_abilities,
)
from ollama_async.prompts.output_format import OutputFormat


def capabilities(
    declared: Sequence[str],
    facts: ModelFacts,
    projectors: Sequence[ModelFacts],
    spec: ChatFormatSpec,
    selection: Selection,
) -> tuple[str, ...]:
    """In Ollama's order of discovery, after those ``declared`` by the configuration.
    ``selection``: which template is in force.

    Templates are parsed and never run, so this is safe with any text.
    """
    abilities = _abilities(facts.chat_template, spec, selection)
    checks = {
        "embedding": facts.is_embedding,
        "completion": not facts.is_embedding,
        "vision": facts.has_vision or bool(projectors),
        "audio": any(each.has_audio for each in (facts, *projectors)),
        "tools": "tools" in abilities,
        "insert": "insert" in abilities,
        "thinking": "thinking" in abilities or spec.family in HARMONY_FAMILIES,
    }
    found = [*declared, *(word for word, holds in checks.items() if holds)]
    return tuple(dict.fromkeys(found))


def _abilities(chat_template: str, spec: ChatFormatSpec, selection: Selection) -> frozenset[str]:
    """Of the template in force and of the parser. Tools count only where what reads the answers
    (as :func:`ollama_async.prompts.chat_format.choose` has it) can tell calls from text.
    """
    named = parsers.named(format_name(selection, spec))
    found: frozenset[str] = frozenset()
    if selection == "gguf_chat_template":
        found = jinja_abilities(chat_template) - _unreadable(parsers.of_jinja(chat_template))
    elif selection in {"parser", "harmony", "go_template"}:
        found = go_abilities(spec.template)
    if named is None:
        return found
    handled = {"tools": named.handles_tools, "thinking": named.handles_thinking}
    return found - _unreadable(named) | {word for word, holds in handled.items() if holds}


def _unreadable(format_: OutputFormat | None) -> frozenset[str]:
    reads_calls = format_ is not None and format_.handles_tools
    return frozenset() if reads_calls else frozenset({"tools"})
