"""Looking at every part of a template's tree, the way Ollama looks."""

from __future__ import annotations

from collections.abc import Iterator

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.template import node as nodes


def names(tree: nodes.Tree) -> frozenset[str]:
    """All fields and variables, in lower case; what is inside ``(…).A`` is not looked at.

    :raises TemplateFailed: another template is used without an argument, which Ollama refuses.
    """
    return frozenset(name.lower() for block in tree.blocks.values() for name in _names_in(block))


def _names_in(block: nodes.Block) -> Iterator[str]:
    for node in block:
        if isinstance(node, nodes.Action):
            yield from names_of(node.pipe)
        elif isinstance(node, nodes.Call):
            if node.pipe is None:
                raise TemplateFailed("undefined template specified")
            yield from names_of(node.pipe)
        elif isinstance(node, nodes.If | nodes.With | nodes.Range):
            yield from names_of(node.pipe)
            yield from _names_in(node.body)
            yield from _names_in(node.otherwise or ())


def names_of(pipe: nodes.Pipe) -> Iterator[str]:
    """The fields and variables that a pipeline reads."""
    for command in pipe.commands:
        for arg in command.args:
            if isinstance(arg, nodes.Field | nodes.Variable):
                yield from arg.names
            elif isinstance(arg, nodes.Pipe):
                yield from names_of(arg)


def fields_of(pipe: nodes.Pipe) -> Iterator[nodes.Field]:
    """The fields of the dot that a pipeline reads."""
    for command in pipe.commands:
        for arg in command.args:
            if isinstance(arg, nodes.Field):
                yield arg
            elif isinstance(arg, nodes.Pipe):
                yield from fields_of(arg)
