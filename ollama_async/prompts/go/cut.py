"""The part of a template that comes before the answer."""

from __future__ import annotations

import msgspec

from ollama_async.gocompat.template import node as nodes


def until_response(block: nodes.Block) -> nodes.Block:
    """``block`` without what follows its first ``.Response``, which itself stays: an answer
    that the conversation has begun goes on there.
    """
    return _Cut().block(block)


class _Cut:
    def __init__(self) -> None:
        self._done = False

    def block(self, block: nodes.Block) -> nodes.Block:
        kept: list[nodes.Node] = []
        for node in block:
            if self._done:
                break
            kept.append(self._node(node))
        return tuple(kept)

    def _node(self, node: nodes.Node) -> nodes.Node:
        if isinstance(node, nodes.Action):
            return msgspec.structs.replace(node, pipe=self._pipe(node.pipe))
        if isinstance(node, nodes.If | nodes.With | nodes.Range):
            body = self.block(node.body)
            otherwise = None if node.otherwise is None else self.block(node.otherwise)
            return msgspec.structs.replace(node, body=body, otherwise=otherwise)
        return node

    def _pipe(self, pipe: nodes.Pipe) -> nodes.Pipe:
        commands: list[nodes.Command] = []
        for command in pipe.commands:
            args = self._args(command.args)
            if args:
                commands.append(msgspec.structs.replace(command, args=args))
        return msgspec.structs.replace(pipe, commands=tuple(commands))

    def _args(self, args: tuple[nodes.Operand, ...]) -> tuple[nodes.Operand, ...]:
        kept: list[nodes.Operand] = []
        for arg in args:
            if self._done:
                break
            kept.append(self._pipe(arg) if isinstance(arg, nodes.Pipe) else arg)
            if isinstance(arg, nodes.Field) and "Response" in arg.names:
                self._done = True
        return tuple(kept)
