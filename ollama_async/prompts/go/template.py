"""A template as Ollama takes it: parsed, and with a place for the answer."""

from __future__ import annotations

import msgspec

from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.parse import parse
from ollama_async.prompts.go import walk


class Template(msgspec.Struct, frozen=True):
    """``variables`` are the names that it mentions, in lower case."""

    tree: nodes.Tree
    variables: frozenset[str]


def template(source: str) -> Template:
    """:raises TemplateFailed: ``source`` is no template, in Go's words."""
    tree = parse(source)
    variables = walk.names(tree)
    if not variables & {"messages", "response"}:
        tree = nodes.Tree(source, {**tree.blocks, "": (*tree.blocks[""], _RESPONSE)})
        variables |= {"response"}
    return Template(tree, variables)


_RESPONSE = nodes.Action(
    0,
    nodes.Pipe(0, (), False, (nodes.Command(0, (nodes.Field(0, ("Response",)),)),)),
)
