"""Evaluates pipelines, commands and operands as Go does."""

from __future__ import annotations

from typing import NamedTuple

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.render_budget import RenderBudget
from ollama_async.gocompat.strconv import byte_length, finished, quote
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.funcs import FUNCTIONS, CallFailed, call_refused
from ollama_async.gocompat.values import (
    NIL,
    Boxed,
    Function,
    Map,
    Pointer,
    Struct,
    Value,
    indirect,
    is_true,
    method_of,
    type_of,
    unboxed,
)

_MESSAGE_LIMIT = 4000
"""Characters of an error: some show whole values."""

_INT_BITS = 63


class UndefinedVariable(Exception):
    """The text is Go's."""


class Scope:
    """The variables of one running template, innermost last; each is found in constant time."""

    def __init__(self, dot: Value) -> None:
        self._names = ["$"]
        self._values = [dot]
        self._indices = {"$": [0]}

    def __len__(self) -> int:
        return len(self._names)

    def shrink(self, size: int) -> None:
        """Only the first ``size`` variables stay."""
        while len(self._names) > size:
            self._indices[self._names.pop()].pop()
            self._values.pop()

    def declare(self, name: str, value: Value) -> None:
        self._indices.setdefault(name, []).append(len(self._names))
        self._names.append(name)
        self._values.append(value)

    def set(self, name: str, value: Value) -> None:
        self._values[self._index(name)] = value

    def set_last(self, number: int, value: Value) -> None:
        """Of the variable declared ``number`` from the end."""
        self._values[-number] = value

    def get(self, name: str) -> Value:
        return self._values[self._index(name)]

    def _index(self, name: str) -> int:
        indices = self._indices.get(name)
        if not indices:
            raise UndefinedVariable(f"undefined variable: {name}")
        return indices[-1]


_MISSING: Value = object()
"""In place of the value that the command before would pass on, when there is none."""


class _Args(NamedTuple):
    """Arguments as written, and the value that the command before passes on as the last one."""

    nodes: tuple[nodes.Operand, ...] = ()
    final: Value = _MISSING

    @property
    def total(self) -> int:
        return len(self.nodes) + (self.final is not _MISSING)


_NO_ARGS = _Args()
_Place = nodes.Field | nodes.Variable | nodes.Chain


class Evaluator:
    """Evaluates for one render. The executor sets where it is: ``node``, ``template``, ``scope``.

    ``missing_is_zero``: what a map does not have is its zero value (``missingkey=zero``) and not
    nothing. Everything raises ``TemplateFailed``.
    """

    def __init__(
        self, source: str, scope: Scope, budget: RenderBudget, *, missing_is_zero: bool
    ) -> None:
        self._source = source
        self._budget = budget
        self._missing_is_zero = missing_is_zero
        self._dot: Value = None
        self.scope = scope
        self.template = ""
        self.node: nodes.Operand | nodes.Command | nodes.Action | nodes.Call | None = None

    def failure(self, why: str) -> TemplateFailed:
        """The error that something is wrong at ``node``."""
        before = self._source[: self.node.at if self.node else 0]
        line = 1 + before.count("\n")
        column = byte_length(before[before.rfind("\n") + 1 :])
        text = (
            f"template: :{line}:{column}: executing {quote(self.template)} at <{self.node}>: {why}"
        )
        return TemplateFailed(finished(text[:_MESSAGE_LIMIT]))

    def pipeline(self, dot: Value, pipe: nodes.Pipe) -> Value:
        """Its value, not boxed; its variables are declared or set."""
        self._dot = dot
        return self._pipeline(pipe)

    def _pipeline(self, pipe: nodes.Pipe) -> Value:
        self.node = pipe
        value: Value = _MISSING
        for command in pipe.commands:
            self._budget.step()
            value = unboxed(self._command(command, _Args(command.args[1:], value)))
        for name in pipe.variables:
            if pipe.assigns:
                self.scope.set(name, value)
            else:
                self.scope.declare(name, value)
        return value

    def _command(self, command: nodes.Command, args: _Args) -> Value:
        first = command.args[0]
        if isinstance(first, nodes.Identifier):
            return self._function(first, command, args)
        if isinstance(first, _Place):
            return self._value_at(first, args)
        if not isinstance(first, nodes.Pipe):
            self.node = first
        self._refuse(first, args)
        if isinstance(first, nodes.Pipe):
            return self._nested(first)
        if isinstance(first, nodes.Nil):
            raise self.failure("nil is not a command")
        return self._constant(first)

    def _nested(self, pipe: nodes.Pipe) -> Value:
        self._budget.enter()
        try:
            return self._pipeline(pipe)
        finally:
            self._budget.leave()

    def _refuse(self, node: nodes.Operand, args: _Args) -> None:
        if args.total:
            raise self.failure(f"can't give argument to non-function {node}")

    def _constant(self, node: nodes.Operand) -> Value:
        self.node = node
        if isinstance(node, nodes.Dot):
            return self._dot
        assert isinstance(node, nodes.Bool | nodes.Number | nodes.String)
        if isinstance(node.value, int) and node.value >> _INT_BITS not in (0, -1):
            raise self.failure(f"{node} overflows int")
        return node.value

    def _value_at(self, node: _Place, args: _Args = _NO_ARGS) -> Value:
        """What ``.A.B``, ``$x.A.B`` or ``(pipe).A.B`` stands for; ``args`` are for a method."""
        self.node = node
        names = node.names
        if isinstance(node, nodes.Field):
            value = self._dot
        elif isinstance(node, nodes.Variable):
            value = self.scope.get(names[0])
            names = names[1:]
            if not names:
                self._refuse(node, args)
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
            raise self.failure(f"nil pointer evaluating {kind}.{name}")
        method = method_of(receiver, name)
        if method is not None:
            return self._call(method, node, name, args)
        if isinstance(receiver, Struct) and receiver.type.member(name) is not None:
            if name[0].islower():
                raise self.failure(f"{name} is an unexported field of struct type {kind}")
            if args.total:
                raise self.failure(f"{name} has arguments but cannot be invoked as function")
            return receiver.get(name)
        if isinstance(receiver, Map):
            if args.total:
                raise self.failure(f"{name} is not a method but has arguments")
            is_there = self._missing_is_zero or name in receiver.items
            return receiver.get(name) if is_there else None
        element = receiver.type.element if nil and isinstance(receiver, Pointer) else None
        if element is not None and element.member(name):
            raise self.failure(f"nil pointer evaluating {kind}.{name}")
        raise self.failure(f"can't evaluate field {name} in type {kind}")

    def _function(
        self,
        node: nodes.Identifier,
        command: nodes.Command | nodes.Identifier,
        args: _Args = _NO_ARGS,
    ) -> Value:
        self.node = node
        if node.text in ("and", "or"):
            return self._decide(node.text, args)
        return self._call(FUNCTIONS[node.text], command, node.text, args)

    def _decide(self, name: str, args: _Args) -> Value:
        """``and`` and ``or``, which look at no more arguments than they need."""
        if not args.total:
            raise self.failure(f"wrong number of args for {name}: want at least 1 got 0")
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
            raise self.failure(f"wrong number of args for {name}: want {fixed} got {args.total}")
        if args.total < fixed:
            got = len(args.nodes)
            raise self.failure(f"wrong number of args for {name}: want at least {fixed} got {got}")
        if function.refusal:
            raise self.failure(function.refusal)
        kinds = (*function.fixed, *((function.rest or "",) * (args.total - fixed)))
        values = [self._argument(kind, arg) for kind, arg in zip(kinds, args.nodes, strict=False)]
        if args.final is not _MISSING:
            values.append(self._fitting(args.final, kinds[-1]))
        if function is FUNCTIONS["call"]:
            self.node = node
            raise self.failure(call_refused(str(args.nodes[0]) if args.nodes else None, values[0]))
        passed = [
            unboxed(value) if kind == "any" else value
            for kind, value in zip(kinds, values, strict=True)
        ]
        try:
            return function.run(self._budget, *passed)
        except CallFailed as reason:
            self.node = node
            raise self.failure(f"error calling {name}: {reason}") from None

    def _argument(self, kind: str, node: nodes.Operand) -> Value:
        """The value of an argument for a parameter of the type ``kind``."""
        self.node = node
        if isinstance(node, nodes.Nil):
            if kind == "string":
                raise self.failure("cannot assign nil to string")
            return NIL if kind == "any" else None
        if isinstance(node, nodes.Bool | nodes.Number):
            if kind == "string":
                raise self.failure(f"expected string; found {node}")
            return self._constant(node)
        if isinstance(node, nodes.String):
            return node.value
        return self._fitting(self._operand(node), kind)

    def _operand(self, node: nodes.Operand) -> Value:
        if isinstance(node, nodes.Dot):
            return self._dot
        if isinstance(node, nodes.Pipe):
            return self._nested(node)
        if isinstance(node, nodes.Identifier):
            return self._function(node, node)
        assert isinstance(node, _Place)
        return self._value_at(node)

    def _fitting(self, value: Value, kind: str) -> Value:
        """``value`` for a parameter of the type ``kind``, or an error."""
        if value is None:
            if kind == "string":
                raise self.failure("invalid value; expected string")
            return NIL if kind == "any" else None
        if kind == "string" and not isinstance(value, str):
            inner = unboxed(value)
            if isinstance(inner, str):
                return inner
            found = type_of(value if inner is None else inner)
            raise self.failure(f"wrong type for value; expected string; got {found}")
        return value
