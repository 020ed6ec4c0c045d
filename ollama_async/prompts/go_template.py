"""What can be read from a Go template without running it."""

from __future__ import annotations

import msgspec

from ollama_async.prompts.go.tags import thinking_tags, tool_tag
from ollama_async.prompts.go.template import template

_SHOWS_RESULTS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")


class TemplateFacts(msgspec.Struct, frozen=True):
    """``variables`` are lower case. ``insert``: it can fill a hole before a suffix.

    ``tool_tag`` is what a tool call begins with. ``tool_round_trip``: it can show a call and
    its result again.
    """

    variables: frozenset[str]
    tools: bool
    insert: bool
    thinking_tags: tuple[str, str] | None
    tool_tag: str
    tool_round_trip: bool


def facts(source: str) -> TemplateFacts:
    """:raises TemplateFailed: ``source`` is no template, in Go's words."""
    parsed = template(source)
    main = parsed.tree.blocks[""]
    variables = parsed.variables
    return TemplateFacts(
        variables=variables,
        tools="tools" in variables,
        insert="suffix" in variables,
        thinking_tags=thinking_tags(main),
        tool_tag=tool_tag(main),
        tool_round_trip={"tools", "toolcalls"} <= variables
        and any(sign in source for sign in _SHOWS_RESULTS),
    )


def check(source: str) -> None:
    """:raises TemplateFailed: ``source`` is no template, in Go's words."""
    template(source)
