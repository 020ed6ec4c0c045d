"""What can be read from a Go template without running it."""

from __future__ import annotations

import msgspec


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
    raise NotImplementedError


def check(source: str) -> None:
    """:raises TemplateFailed: ``source`` is no template, in Go's words."""
    facts(source)
