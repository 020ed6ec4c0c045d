"""The inside of an action: pipelines, commands and their operands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ollama_async.gocompat.numerals import character_constant, complex_constant, constant
from ollama_async.gocompat.strconv import quote, unquote
from ollama_async.gocompat.template import lex as kinds
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.funcs import FUNCTION_NAMES
from ollama_async.gocompat.template.lex import Token
from ollama_async.gocompat.template.stream import Stream

PARENTHESES_LIMIT = 50
"""Pairs inside one another: each costs the parser, and the one who runs it, several calls."""

_NOT_EXECUTABLE = (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)
_NUMBERS: dict[str, Callable[[str], int | float | complex]] = {
    kinds.NUMBER: constant,
    kinds.COMPLEX: complex_constant,
    kinds.CHARACTER: character_constant,
}


class Operands:
    """Reads pipelines of one template, and remembers which variables are declared."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._variables = ["$"]
        self._declared = Counter(self._variables)
        self._depth = 0
        self._terms: dict[str, Callable[[Token], nodes.Operand]] = {
            kinds.BOOL: lambda token: nodes.Bool(token.at, token.text == "true"),
            kinds.DOT: lambda token: nodes.Dot(token.at),
            kinds.FIELD: lambda token: nodes.Field(token.at, (token.text[1:],)),
            "nil": lambda token: nodes.Nil(token.at),
            kinds.IDENTIFIER: self._function,
            kinds.VARIABLE: self._variable,
            kinds.CHARACTER: self._number,
            kinds.COMPLEX: self._number,
            kinds.NUMBER: self._number,
            kinds.OPEN: self._parentheses,
            kinds.STRING: self._string,
            kinds.RAW_STRING: self._string,
        }

    def declared(self) -> int:
        """How many variables there are now, for :meth:`forget`."""
        return len(self._variables)

    def forget(self, count: int) -> None:
        """All variables but the first ``count`` are out of scope."""
        while len(self._variables) > count:
            self._declared[self._variables.pop()] -= 1

    def pipeline(self, context: str, end: str) -> nodes.Pipe:
        """Reads up to and with a token of kind ``end``."""
        at = self._stream.peek_word().at
        variables, assigns = self._declarations(context)
        commands: list[nodes.Command] = []
        while (token := self._stream.next_word()).kind != end:
            if token.kind not in self._terms:
                raise self._stream.unexpected(token, context)
            self._stream.position -= 1
            commands.append(self._command())
        self._check(commands, context)
        return nodes.Pipe(at, variables, assigns, tuple(commands))

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """``$x :=``, ``$x =``, or in a range ``$i, $x :=``; the second: whether it assigns."""
        stream = self._stream
        names: list[str] = []
        while (variable := stream.peek_word()).kind == kinds.VARIABLE:
            start = stream.position
            stream.next()
            following = stream.peek_word()
            if following.kind in (kinds.ASSIGN, kinds.DECLARE):
                stream.next()
                names.append(self._declare(variable.text))
                return tuple(names), following.kind == kinds.ASSIGN
            if following.text != "," or following.kind != kinds.OTHER:
                stream.position = start
                break
            stream.next()
            names.append(self._declare(variable.text))
            if context != "range" or len(names) > 1:
                raise stream.error(f"too many declarations in {context}")
            if stream.peek_word().kind not in (kinds.VARIABLE, kinds.RIGHT, kinds.CLOSE):
                raise stream.error("range can only initialize variables")
        return tuple(names), False

    def _declare(self, name: str) -> str:
        self._variables.append(name)
        self._declared[name] += 1
        return name

    def _check(self, commands: list[nodes.Command], context: str) -> None:
        if not commands:
            raise self._stream.error(f"missing value for {context}")
        for number, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], _NOT_EXECUTABLE):
                raise self._stream.error(f"non executable command in pipeline stage {number}")

    def _command(self) -> nodes.Command:
        stream = self._stream
        at = stream.peek_word().at
        args: list[nodes.Operand] = []
        while True:
            stream.peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = stream.next()
            if token.kind == kinds.SPACE:
                continue
            if token.kind in (kinds.RIGHT, kinds.CLOSE):
                stream.position -= 1
            elif token.kind != kinds.PIPE:
                raise stream.unexpected(token, "operand")
            break
        if not args:
            raise stream.error("empty command")
        return nodes.Command(at, tuple(args))

    def _operand(self) -> nodes.Operand | None:
        """A term with the fields that follow it; None: there is no operand here."""
        node = self._term()
        if node is None or self._stream.peek().kind != kinds.FIELD:
            return node
        at = self._stream.peek().at
        names: list[str] = []
        while self._stream.peek().kind == kinds.FIELD:
            names.append(self._stream.next().text[1:])
        if isinstance(node, nodes.Field | nodes.Variable):
            return type(node)(at, (*node.names, *names))
        if isinstance(node, _NOT_EXECUTABLE):
            raise self._stream.error(f"unexpected . after term {quote(str(node))}")
        return nodes.Chain(at, node, tuple(names))

    def _term(self) -> nodes.Operand | None:
        token = self._stream.next_word()
        read = self._terms.get(token.kind)
        if read is None:
            self._stream.position -= 1
            return None
        return read(token)

    def string(self, token: Token) -> str:
        """The value of a string literal."""
        try:
            return unquote(token.text)
        except ValueError as reason:
            raise self._stream.error(str(reason)) from None

    def _string(self, token: Token) -> nodes.Operand:
        return nodes.String(token.at, token.text, self.string(token))

    def _number(self, token: Token) -> nodes.Operand:
        try:
            value = _NUMBERS[token.kind](token.text)
        except ValueError as reason:
            raise self._stream.error(str(reason)) from None
        return nodes.Number(token.at, token.text, value)

    def _function(self, token: Token) -> nodes.Operand:
        if token.text not in FUNCTION_NAMES:
            raise self._stream.error(f"function {quote(token.text)} not defined")
        return nodes.Identifier(token.at, token.text)

    def _variable(self, token: Token) -> nodes.Operand:
        if not self._declared[token.text]:
            raise self._stream.error(f"undefined variable {quote(token.text)}")
        return nodes.Variable(token.at, (token.text,))

    def _parentheses(self, _: Token) -> nodes.Operand:
        if self._depth >= PARENTHESES_LIMIT:
            raise self._stream.error("max expression depth exceeded")
        self._depth += 1
        pipe = self.pipeline("parenthesized pipeline", kinds.CLOSE)
        self._depth -= 1
        return pipe
