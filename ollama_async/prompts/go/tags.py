"""The marks around thoughts and before tool calls, guessed from how a template shows old ones."""

from __future__ import annotations

from collections.abc import Iterator

from ollama_async.gocompat.template import node as nodes
from ollama_async.prompts.go.walk import fields_of

NO_TAG = "{"
"""Where no mark is found, a call is whatever looks like JSON."""


def thinking_tags(main: nodes.Block) -> tuple[str, str] | None:
    """The texts at both ends of the block around the last ``.Thinking`` of a message.

    None: there is no such block, or it has no text at one end.
    """
    opening = closing = ""
    for block in _around_thinking(main, of_messages=False):
        first, last = block[0], block[-1]
        if isinstance(first, nodes.Text):
            opening = first.text.strip()
        if isinstance(last, nodes.Text):
            closing = last.text.strip()
    return (opening, closing) if opening and closing else None


def _around_thinking(block: nodes.Block, *, of_messages: bool) -> Iterator[nodes.Block]:
    """For every mention of a message's thinking the block it is in; the condition of a branch
    belongs to the block that the branch is in. ``of_messages``: the nearest loop is over messages.
    """
    for node in block:
        if isinstance(node, nodes.Text | nodes.Break | nodes.Continue) or node.pipe is None:
            continue
        inside = of_messages
        if isinstance(node, nodes.Range):
            inside = any(field.names[0] == "Messages" for field in fields_of(node.pipe))
        thinking = sum(field.names[0] == "Thinking" for field in fields_of(node.pipe))
        if thinking and inside:
            yield block
        if isinstance(node, nodes.If | nodes.With | nodes.Range):
            yield from _around_thinking(node.body, of_messages=inside)
            yield from _around_thinking(node.otherwise or (), of_messages=inside)


def tool_tag(main: nodes.Block) -> str:
    """The first text under the first condition that mentions ``.ToolCalls``, up to any JSON."""
    branch = _tool_branch(main)
    text = _first_text(branch.body) if branch is not None else None
    if not text:
        return NO_TAG
    return text.replace("\r\n", "\n").partition("{")[0].strip() or NO_TAG


def _tool_branch(block: nodes.Block) -> nodes.If | None:
    for node in block:
        if not isinstance(node, nodes.If | nodes.With | nodes.Range):
            continue
        if isinstance(node, nodes.If) and _mentions_calls(node.pipe):
            return node
        found = _tool_branch(node.body) or _tool_branch(node.otherwise or ())
        if found is not None:
            return found
    return None


def _mentions_calls(pipe: nodes.Pipe) -> bool:
    return any(
        isinstance(arg, nodes.Field) and "ToolCalls" in arg.names
        for command in pipe.commands
        for arg in command.args
    )


def _first_text(block: nodes.Block) -> str | None:
    """The first text that is not blank, unless something else is shown before it."""
    for node in block:
        if isinstance(node, nodes.Text) and node.text.strip():
            return node.text
        if isinstance(node, nodes.Action):
            return None
        if isinstance(node, nodes.If | nodes.With | nodes.Range):
            return _first_text(node.body) or _first_text(node.otherwise or ())
    return None
