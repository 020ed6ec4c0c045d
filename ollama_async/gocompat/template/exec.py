"""Executes a template's tree: text, actions, ``if``, ``with``, ``range``, nested templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ollama_async.gocompat.printf import sprint
from ollama_async.gocompat.render_budget import TextBuffer
from ollama_async.gocompat.strconv import quote
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.evaluate import Evaluator, Scope, UndefinedVariable
from ollama_async.gocompat.template.funcs import printable
from ollama_async.gocompat.values import (
    Map,
    Sequence,
    Slice,
    Value,
    indirect,
    is_true,
    kind_of,
    placed,
    type_of,
)

_Jump = Literal["break", "continue"] | None


def execute(
    tree: nodes.Tree, data: Map, out: TextBuffer, *, main: nodes.Block, missing_is_zero: bool
) -> None:
    """Writes ``main``, usually the tree's own main block, with ``data`` as its dot.

    ``missing_is_zero``: see :class:`.Evaluator`.

    :raises TemplateFailed: with Go's text, or because a limit is reached.
    :raises RecursionError: the data are nested very deeply.
    """
    evaluator = Evaluator(tree.source, Scope(data), out.budget, missing_is_zero=missing_is_zero)
    try:
        _Execution(tree, evaluator, out).block(data, main)
    except UndefinedVariable as reason:
        raise evaluator.failure(str(reason)) from None


class _Execution:
    def __init__(self, tree: nodes.Tree, evaluator: Evaluator, out: TextBuffer) -> None:
        self._tree = tree
        self._evaluator = evaluator
        self._out = out
        self._budget = out.budget

    def block(self, dot: Value, block: nodes.Block) -> _Jump:
        self._budget.enter()
        try:  # here, and not around a call, so that each level takes few Python calls
            for node in block:
                self._budget.step()
                jump = self._node(dot, node)
                if jump:
                    return jump
            return None
        finally:
            self._budget.leave()

    def _node(self, dot: Value, node: nodes.Node) -> _Jump:
        match node:
            case nodes.Text():
                self._out.write(node.text)
            case nodes.Action():
                self._action(dot, node)
            case nodes.If() | nodes.With():
                return self._branch(dot, node)
            case nodes.Range():
                self._range(dot, node)
            case nodes.Call():
                self._call(dot, node)
            case nodes.Break():
                return "break"
            case nodes.Continue():
                return "continue"
        return None

    def _action(self, dot: Value, node: nodes.Action) -> None:
        value = self._evaluator.pipeline(dot, node.pipe)
        if node.pipe.variables:
            return
        if isinstance(value, str):
            self._out.write(value)
            return
        if isinstance(value, Sequence):
            self._evaluator.node = node
            raise self._evaluator.failure(f"can't print {node} of type {type_of(value)}")
        self._out.write(sprint(self._budget, printable(value)))

    def _branch(self, dot: Value, node: nodes.If | nodes.With) -> _Jump:
        scope = self._evaluator.scope
        size = len(scope)
        jump: _Jump = None
        link: nodes.If | nodes.With | None = node
        while link is not None:
            value = self._evaluator.pipeline(dot, link.pipe)
            if is_true(value):
                jump = self.block(value if isinstance(link, nodes.With) else dot, link.body)
                break
            otherwise, link = link.otherwise, _only_branch(link.otherwise)
            if otherwise and link is None:
                jump = self.block(dot, otherwise)
        scope.shrink(size)
        return jump

    def _range(self, dot: Value, node: nodes.Range) -> None:
        scope = self._evaluator.scope
        size = len(scope)
        value, _ = indirect(self._evaluator.pipeline(dot, node.pipe))
        inside = len(scope)
        ran = False
        for index, element in self._elements(value, node):
            ran = True
            self._budget.step()
            _set_variables(scope, node.pipe, index, element)
            jump = self.block(element, node.body)
            scope.shrink(inside)
            if jump == "break":
                break
        if not ran and node.otherwise is not None:
            self.block(dot, node.otherwise)
        scope.shrink(size)

    def _elements(self, value: Value, node: nodes.Range) -> Iterator[tuple[Value, Value]]:
        if isinstance(value, Slice):
            return ((index, value.at(index)) for index in range(len(value)))
        if isinstance(value, Map):
            self._budget.step(len(value))  # they are sorted even if none is looked at
            element = value.type.element
            return ((key, placed(item, element)) for key, item in value.sorted())
        if isinstance(value, Sequence):
            both = len(node.pipe.variables) > 1
            return ((key, item if both else key) for key, item in value.pairs.items())
        kind = kind_of(value)
        if kind in ("int", "uint"):
            if len(node.pipe.variables) > 1:
                raise self._evaluator.failure(
                    f"can't use {int(value)} to iterate over more than one variable"
                )
            return ((None, type(value)(number)) for number in range(value))
        if kind not in ("invalid", "interface"):
            raise self._evaluator.failure(f"range can't iterate over {sprint(self._budget, value)}")
        return iter(())

    def _call(self, dot: Value, node: nodes.Call) -> None:
        evaluator = self._evaluator
        evaluator.node = node
        block = self._tree.blocks.get(node.name)
        if block is None:
            raise evaluator.failure(f"template {quote(node.name)} not defined")
        argument = evaluator.pipeline(dot, node.pipe) if node.pipe else None
        outer, name = evaluator.scope, evaluator.template
        evaluator.scope, evaluator.template = Scope(argument), node.name
        self.block(argument, block)
        evaluator.scope, evaluator.template = outer, name


def _set_variables(scope: Scope, pipe: nodes.Pipe, index: Value, element: Value) -> None:
    """``{{ range $i, $x := … }}``, or one variable for the element."""
    names = pipe.variables
    if not names:
        return
    if not pipe.assigns:
        scope.set_last(1, element)
        if len(names) > 1:
            scope.set_last(2, index)
    elif len(names) == 1:
        scope.set(names[0], element)
    else:
        scope.set(names[0], index)
        scope.set(names[1], element)


def _only_branch(block: nodes.Block | None) -> nodes.If | nodes.With | None:
    """The branch that is all of ``block``: the next link of an ``else if``."""
    if block and len(block) == 1 and isinstance(block[0], nodes.If | nodes.With):
        return block[0]
    return None
