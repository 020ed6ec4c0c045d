"""Executes a template's tree: walks its nodes and evaluates their pipelines as Go does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.printf import sprint
from ollama_async.gocompat.render_budget import TextBuffer
from ollama_async.gocompat.strconv import byte_length, finished, quote
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.funcs import FUNCTIONS, CallFailed, call_error, printable
from ollama_async.gocompat.values import (
    NIL,
    Boxed,
    Function,
    Map,
    Pointer,
    Sequence,
    Slice,
    Struct,
    Value,
    indirect,
    is_true,
    kind_of,
    method_of,
    placed,
    type_of,
    unboxed,
)

_MESSAGE_LIMIT = 4000
"""Characters of an error: some show whole values."""

_INT_BITS = 63

_MISSING: Value = object()
"""Stands for the piped value of a pipeline's first command, which gets none."""

_Jump = Literal["break", "continue"] | None
_Place = nodes.Field | nodes.Variable | nodes.Chain


class _Args(NamedTuple):
    """Arguments as written, and the last one, which the previous command of the pipeline gives."""

    nodes: tuple[nodes.Operand, ...] = ()
    final: Value = _MISSING

    @property
    def total(self) -> int:
        return len(self.nodes) + (self.final is not _MISSING)


_NO_ARGS = _Args()


class _UndefinedVariable(Exception):
    """The text is Go's."""


class _Scope:
    """The variables of one running template; each name has a stack of values."""

    def __init__(self, dot: Value) -> None:
        self._declared = ["$"]
        self._values = {"$": [dot]}

    def __len__(self) -> int:
        return len(self._declared)

    def shrink(self, size: int) -> None:
        """Drop all but the first ``size`` variables."""
        while len(self._declared) > size:
            self._values[self._declared.pop()].pop()

    def declare(self, name: str, value: Value) -> None:
        self._declared.append(name)
        self._values.setdefault(name, []).append(value)

    def set(self, name: str, value: Value) -> None:
        self.get(name)
        self._values[name][-1] = value

    def get(self, name: str) -> Value:
        if not self._values.get(name):
            raise _UndefinedVariable(f"undefined variable: {name}")
        return self._values[name][-1]


def execute(
    tree: nodes.Tree, data: Map, out: TextBuffer, *, main: nodes.Block, missing_is_zero: bool
) -> None:
    """Write ``main``, usually the tree's own main block, with ``data`` as its dot.

    ``missing_is_zero``: what a map lacks is its zero value (``missingkey=zero``), not nothing.

    :raises TemplateFailed: with Go's text, or because a limit is reached.
    :raises RecursionError: the data are nested very deeply.
    """
    state = _State(tree, data, out, missing_is_zero=missing_is_zero)
    try:
        state.walk(data, main)
    except _UndefinedVariable as reason:
        raise state.error(str(reason)) from None


class _State:
    """One render. Its methods raise ``TemplateFailed``."""

    def __init__(
        self, tree: nodes.Tree, data: Map, out: TextBuffer, *, missing_is_zero: bool
    ) -> None:
        self._tree = tree
        self._out = out
        self._budget = out.budget
        self._missing_is_zero = missing_is_zero
        self._scope = _Scope(data)
        self._dot: Value = None
        self._template = ""  # this and the node are for errors
        self._node: nodes.Operand | nodes.Command | nodes.Action | nodes.Call | None = None

    def error(self, why: str) -> TemplateFailed:
        """The error of the node that is being evaluated."""
        before = self._tree.source[: self._node.at if self._node else 0]
        line = 1 + before.count("\n")
        column = byte_length(before[before.rfind("\n") + 1 :])
        place = f"executing {quote(self._template)} at <{self._node}>"
        text = f"template: :{line}:{column}: {place}: {why}"
        return TemplateFailed(finished(text[:_MESSAGE_LIMIT]))

    # -- nodes -----------------------------------------------------------------------------------

    def walk(self, dot: Value, block: nodes.Block) -> _Jump:
        self._budget.enter()
        try:  # here, and not around a call, so that each level takes few Python calls
            for node in block:
                self._budget.step()
                jump = self._walk_node(dot, node)
                if jump:
                    return jump
            return None
        finally:
            self._budget.leave()

    def _walk_node(self, dot: Value, node: nodes.Node) -> _Jump:
        match node:
            case nodes.Text():
                self._out.write(node.text)
            case nodes.Action():
                self._walk_action(dot, node)
            case nodes.Branch(word="range"):
                self._walk_range(dot, node)
            case nodes.Branch():
                return self._walk_branch(dot, node)
            case nodes.Call():
                self._walk_call(dot, node)
            case nodes.Jump():
                return node.word
        return None

    def _walk_action(self, dot: Value, node: nodes.Action) -> None:
        value = self._pipeline(dot, node.pipe)
        if node.pipe.variables:
            return
        if isinstance(value, str):
            self._out.write(value)
            return
        if isinstance(value, Sequence):
            self._node = node
            raise self.error(f"can't print {node} of type {type_of(value)}")
        self._out.write(sprint(self._budget, printable(value)))

    def _walk_branch(self, dot: Value, node: nodes.Branch) -> _Jump:
        size = len(self._scope)
        jump: _Jump = None
        link: nodes.Branch | None = node
        while link is not None:
            value = self._pipeline(dot, link.pipe)
            if is_true(value):
                jump = self.walk(value if link.word == "with" else dot, link.body)
                break
            otherwise, link = link.otherwise or (), None
            first = otherwise[0] if len(otherwise) == 1 else None
            if isinstance(first, nodes.Branch) and first.word != "range":
                link = first  # the next link of an ``else if``
            elif otherwise:
                jump = self.walk(dot, otherwise)
        self._scope.shrink(size)
        return jump

    def _walk_range(self, dot: Value, node: nodes.Branch) -> None:
        scope = self._scope
        size = len(scope)
        value, _ = indirect(self._pipeline(dot, node.pipe))
        inside = len(scope)
        ran = False
        for index, element in self._elements(value, node):
            ran = True
            self._budget.step()
            names = node.pipe.variables
            for name, item in zip(names, (index, element)[-len(names) :], strict=False):
                scope.set(name, item)
            jump = self.walk(element, node.body)
            scope.shrink(inside)
            if jump == "break":
                break
        if not ran and node.otherwise is not None:
            self.walk(dot, node.otherwise)
        scope.shrink(size)

    def _elements(self, value: Value, node: nodes.Branch) -> Iterator[tuple[Value, Value]]:
        """What ``range`` iterates over: pairs of an index or key and an element."""
        if isinstance(value, Slice):
            return ((index, value.at(index)) for index in range(len(value)))
        if isinstance(value, Map):
            self._budget.step(len(value))  # they are sorted even if none is looked at
            element = value.type.element
            return ((key, placed(item, element)) for key, item in value.sorted())
        has_two = len(node.pipe.variables) > 1
        if isinstance(value, Sequence):
            return ((key, item if has_two else key) for key, item in value.pairs.items())
        kind = kind_of(value)
        if kind in ("int", "uint"):
            if has_two:
                raise self.error(f"can't use {int(value)} to iterate over more than one variable")
            return ((None, type(value)(number)) for number in range(value))
        if kind not in ("invalid", "interface"):
            raise self.error(f"range can't iterate over {sprint(self._budget, value)}")
        return iter(())

    def _walk_call(self, dot: Value, node: nodes.Call) -> None:
        self._node = node
        block = self._tree.blocks.get(node.name)
        if block is None:
            raise self.error(f"template {quote(node.name)} not defined")
        argument = self._pipeline(dot, node.pipe) if node.pipe else None
        outer, name = self._scope, self._template
        self._scope, self._template = _Scope(argument), node.name
        self.walk(argument, block)
        self._scope, self._template = outer, name

    # -- pipelines -------------------------------------------------------------------------------

    def _pipeline(self, dot: Value, pipe: nodes.Pipe) -> Value:
        """The value of ``pipe``, not boxed. Declares or sets its variables."""
        self._dot = dot
        self._node = pipe
        value: Value = _MISSING
        for command in pipe.commands:
            self._budget.step()
            value = unboxed(self._command(command, _Args(command.args[1:], value)))
        for name in pipe.variables:
            if pipe.assigns:
                self._scope.set(name, value)
            else:
                self._scope.declare(name, value)
        return value

    def _command(self, command: nodes.Command, args: _Args) -> Value:
        first = command.args[0]
        if isinstance(first, nodes.Identifier):
            return self._function(first, command, args)
        if isinstance(first, _Place):
            return self._place(first, args)
        if not isinstance(first, nodes.Pipe):
            self._node = first
        self._check_no_args(first, args)
        if isinstance(first, nodes.Nil):
            raise self.error("nil is not a command")
        return self._operand(first)

    def _operand(self, node: nodes.Operand) -> Value:
        """The value of any operand but ``nil``. The caller has set the node of a constant."""
        if isinstance(node, _Place):
            return self._place(node)
        if isinstance(node, nodes.Dot):
            return self._dot
        if isinstance(node, nodes.Identifier):
            return self._function(node, node)
        if isinstance(node, nodes.Pipe):
            self._budget.enter()
            try:
                return self._pipeline(self._dot, node)
            finally:
                self._budget.leave()
        assert not isinstance(node, nodes.Nil)
        if isinstance(node.value, int) and node.value >> _INT_BITS not in (0, -1):
            raise self.error(f"{node} overflows int")
        return node.value

    def _check_no_args(self, node: nodes.Operand, args: _Args) -> None:
        if args.total:
            raise self.error(f"can't give argument to non-function {node}")

    def _place(self, node: _Place, args: _Args = _NO_ARGS) -> Value:
        """What ``.A.B``, ``$x.A.B`` or ``(pipe).A.B`` stands for; ``args`` are for a method."""
        self._node = node
        names = node.names
        if isinstance(node, nodes.Field):
            value = self._dot
        elif isinstance(node, nodes.Variable):
            value = self._scope.get(names[0])
            names = names[1:]
            if not names:
                self._check_no_args(node, args)
                return value
        else:
            value = self._operand(node.node)
        for name in names[:-1]:
            value = self._field(value, name, node, _NO_ARGS)
        return self._field(value, names[-1], node, args)

    def _field(self, receiver: Value, name: str, node: _Place, args: _Args) -> Value:
        if receiver is None:
            return None
        kind = type_of(receiver)
        receiver, nil = indirect(receiver)
        if isinstance(receiver, Boxed):
            raise self.error(f"nil pointer evaluating {kind}.{name}")
        method = method_of(receiver, name)
        if method is not None:
            return self._call(method, node, name, args)
        if isinstance(receiver, Struct) and receiver.type.member(name) is not None:
            if name[0].islower():
                raise self.error(f"{name} is an unexported field of struct type {kind}")
            if args.total:
                raise self.error(f"{name} has arguments but cannot be invoked as function")
            return receiver.get(name)
        if isinstance(receiver, Map):
            if args.total:
                raise self.error(f"{name} is not a method but has arguments")
            return receiver.get(name) if self._missing_is_zero or name in receiver.items else None
        element = receiver.type.element if nil and isinstance(receiver, Pointer) else None
        if element is not None and element.member(name):
            raise self.error(f"nil pointer evaluating {kind}.{name}")
        raise self.error(f"can't evaluate field {name} in type {kind}")

    def _function(
        self,
        node: nodes.Identifier,
        command: nodes.Command | nodes.Identifier,
        args: _Args = _NO_ARGS,
    ) -> Value:
        self._node = node
        if node.text in ("and", "or"):
            return self._and_or(node.text, args)
        return self._call(FUNCTIONS[node.text], command, node.text, args)

    def _and_or(self, name: str, args: _Args) -> Value:
        """``and`` and ``or`` evaluate no more arguments than they need."""
        if not args.total:
            raise self.error(f"wrong number of args for {name}: want at least 1 got 0")
        value: Value = None
        for arg in args.nodes:
            value = self._argument("value", arg)
            if is_true(value) == (name == "or"):
                return value
        return value if args.final is _MISSING else args.final

    def _call(
        self, function: Function, node: nodes.Operand | nodes.Command, name: str, args: _Args
    ) -> Value:
        fixed = len(function.fixed)
        if function.rest is None and args.total != fixed:
            raise self.error(f"wrong number of args for {name}: want {fixed} got {args.total}")
        if args.total < fixed:
            got = len(args.nodes)
            raise self.error(f"wrong number of args for {name}: want at least {fixed} got {got}")
        if function.refusal:
            raise self.error(function.refusal)
        kinds = (*function.fixed, *((function.rest or "",) * (args.total - fixed)))
        values = [self._argument(kind, arg) for kind, arg in zip(kinds, args.nodes, strict=False)]
        if args.final is not _MISSING:
            values.append(self._convert(args.final, kinds[-1]))
        if function is FUNCTIONS["call"]:
            self._node = node
            raise self.error(call_error(str(args.nodes[0]) if args.nodes else None, values[0]))
        passed = [
            unboxed(value) if kind == "any" else value
            for kind, value in zip(kinds, values, strict=True)
        ]
        try:
            return function.run(self._budget, *passed)
        except CallFailed as reason:
            self._node = node
            raise self.error(f"error calling {name}: {reason}") from None

    def _argument(self, kind: str, node: nodes.Operand) -> Value:
        """The value of an argument for a parameter of the type ``kind``."""
        self._node = node
        if isinstance(node, nodes.Nil):
            if kind == "string":
                raise self.error("cannot assign nil to string")
            return self._convert(None, kind)
        if kind == "string" and isinstance(node, nodes.Bool | nodes.Number):
            raise self.error(f"expected string; found {node}")
        return self._convert(self._operand(node), kind)

    def _convert(self, value: Value, kind: str) -> Value:
        """``value`` for a parameter of the type ``kind``."""
        if value is None:
            if kind == "string":
                raise self.error("invalid value; expected string")
            return NIL if kind == "any" else None
        if kind == "string" and not isinstance(value, str):
            inner = unboxed(value)
            if isinstance(inner, str):
                return inner
            found = type_of(value if inner is None else inner)
            raise self.error(f"wrong type for value; expected string; got {found}")
        return value
