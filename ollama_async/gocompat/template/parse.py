"""Parses a template's tokens into a tree, with Go's errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal, TypeVar

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.strconv import (
    parse_complex,
    parse_number,
    quote,
    unquote,
    unquote_character,
)
from ollama_async.gocompat.template import lex as kinds
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.funcs import FUNCTION_NAMES
from ollama_async.gocompat.template.lex import Token, TokenStream, lex

_T = TypeVar("_T")

SOURCE_LIMIT = 1 << 18
"""Characters that a template may have; the longest in use have some 20,000. Each may cost the
parser some microseconds.
"""

NESTING_LIMIT = 100
"""Blocks inside one another: each costs the parser and the executor several calls."""

PARENTHESES_LIMIT = 50
"""The same of pairs of parentheses."""

_END, _ELSE = "{{end}}", "{{else}}"
"""What ends a list of nodes. The right delimiter of an ``{{else if}}`` is still to come."""

_NOT_EXECUTABLE = (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)
_NUMBERS: dict[str, Callable[[str], int | float | complex]] = {
    kinds.NUMBER: parse_number,
    kinds.COMPLEX: parse_complex,
    kinds.CHARACTER: unquote_character,
}


def parse(source: str) -> nodes.Tree:
    """:raises TemplateFailed: ``source`` is no template, with Go's text."""
    if len(source) > SOURCE_LIMIT:
        raise TemplateFailed(f"the template is longer than {SOURCE_LIMIT} characters")
    blocks: dict[str, nodes.Block] = {}
    _Parser(TokenStream(source, lex(source)), blocks, depth=0).whole()
    return nodes.Tree(source, blocks)


class _Parser:
    """Parses one template. Each ``define`` and ``block`` has its own, with a fork of the stream."""

    def __init__(self, stream: TokenStream, blocks: dict[str, nodes.Block], *, depth: int) -> None:
        self._stream = stream
        self._blocks = blocks
        self._depth = depth
        self._range_depth = 0
        self._parentheses_depth = 0
        self._variables = ["$"]
        self._declared = Counter(self._variables)
        self._terms: dict[str, Callable[[Token], nodes.Operand]] = {
            kinds.BOOL: lambda token: nodes.Bool(token.at, token.text, token.text == "true"),
            kinds.DOT: lambda token: nodes.Dot(token.at, token.text),
            kinds.FIELD: lambda token: nodes.Field(token.at, (token.text[1:],)),
            "nil": lambda token: nodes.Nil(token.at, token.text),
            kinds.IDENTIFIER: self._function,
            kinds.VARIABLE: self._variable,
            kinds.CHARACTER: self._number,
            kinds.COMPLEX: self._number,
            kinds.NUMBER: self._number,
            kinds.OPEN: self._parentheses,
            kinds.STRING: self._string,
            kinds.RAW_STRING: self._string,
        }
        self._controls: dict[str, Callable[[Token], nodes.Node]] = {
            "if": lambda _: self._chain("if"),
            "with": lambda _: self._chain("with"),
            "range": self._range,
            "template": self._template,
            "block": self._block,
            "break": lambda token: nodes.Jump(self._in_range(token), "break"),
            "continue": lambda token: nodes.Jump(self._in_range(token), "continue"),
        }

    # -- templates and their nodes -----------------------------------------------------------------

    def whole(self) -> None:
        stream = self._stream
        items: list[nodes.Node] = []
        while (token := stream.peek()).kind != kinds.EOF:
            if token.kind == kinds.LEFT and self._begins_definition():
                self._nested(_Parser.definition)
                continue
            node = self._text_or_action()
            if isinstance(node, str):
                raise stream.error(f"unexpected {node}")
            items.append(node)
        self._add("", tuple(items))

    def _begins_definition(self) -> bool:
        start = self._stream.position
        self._stream.next()
        if self._stream.next_non_space().kind == "define":
            return True
        self._stream.position = start
        return False

    def _nested(self, read: Callable[[_Parser], None]) -> None:
        """Let another parser read a template inside this one."""
        inner = _Parser(self._stream.fork(), self._blocks, depth=self._depth)
        read(inner)
        self._stream.position = inner._stream.position

    def definition(self) -> None:
        _, name = self._name("define clause")
        self._stream.expect(kinds.RIGHT, "define clause")
        self.body_of(name, "define clause", self._stream)

    def body_of(self, name: str, context: str, stream: TokenStream) -> None:
        """Parse the contents of the template ``name`` and its end. ``stream`` makes the error."""
        body, end = self._items()
        if end != _END:
            raise stream.error(f"unexpected {end} in {context}")
        self._add(name, body)

    def _add(self, name: str, block: nodes.Block) -> None:
        """The last definition that is not blank counts, and there may be only one."""
        if name not in self._blocks or _is_blank(self._blocks[name]):
            self._blocks[name] = block
        elif not _is_blank(block):
            # Go's error has this word twice
            raise self._stream.error(f"template: multiple definition of template {quote(name)}")

    def _items(self) -> tuple[nodes.Block, str]:
        """The nodes up to the ``end`` or ``else`` that closes this block, and which it is."""
        self._depth += 1
        if self._depth > NESTING_LIMIT:
            raise self._stream.error(f"blocks nested more than {NESTING_LIMIT} deep")
        items: list[nodes.Node] = []
        while self._stream.peek_non_space().kind != kinds.EOF:
            node = self._text_or_action()
            if isinstance(node, str):
                self._depth -= 1
                return tuple(items), node
            items.append(node)
        raise self._stream.error("unexpected EOF")

    def _text_or_action(self) -> nodes.Node | str:
        """A node, or :data:`_END` or :data:`_ELSE`."""
        token = self._stream.next_non_space()
        if token.kind == kinds.TEXT:
            return nodes.Text(token.at, token.text)
        if token.kind != kinds.LEFT:
            raise self._stream.unexpected(token, "input")
        self._stream.action = token
        node = self._action()
        self._stream.action = None
        return node

    def _action(self) -> nodes.Node | str:
        token = self._stream.next_non_space()
        control = self._controls.get(token.kind)
        if control is not None:
            return control(token)
        if token.kind == "end":
            self._stream.expect(kinds.RIGHT, "end")
            return _END
        if token.kind == "else":
            if self._stream.peek_non_space().kind not in ("if", "with"):
                self._stream.expect(kinds.RIGHT, "else")
            return _ELSE
        self._stream.position -= 1
        return nodes.Action(token.at, self._pipeline("command", kinds.RIGHT))

    def _chain(self, word: Literal["if", "with"]) -> nodes.Branch:
        """``if``, all of its ``else if`` and its ``else``; the same for ``with``."""
        variables = len(self._variables)
        links = [self._link(word)]
        otherwise = None
        while links[-1][2] == _ELSE:
            if self._stream.peek().kind == word:
                self._stream.next()
                self._depth += 1  # in the tree each link is inside the one before
                links.append(self._link(word))
                continue
            otherwise = self._otherwise()
            break
        self._pop_variables(variables)
        self._depth -= len(links) - 1
        pipe, body, _ = links.pop()
        node = nodes.Branch(pipe.at, word, pipe, body, otherwise)
        for pipe, body, _ in reversed(links):
            node = nodes.Branch(pipe.at, word, pipe, body, (node,))
        return node

    def _link(self, word: str) -> tuple[nodes.Pipe, nodes.Block, str]:
        pipe = self._pipeline(word, kinds.RIGHT)
        return (pipe, *self._items())

    def _range(self, _: Token) -> nodes.Node:
        variables = len(self._variables)
        pipe = self._pipeline("range", kinds.RIGHT)
        self._range_depth += 1
        body, end = self._items()
        self._range_depth -= 1
        otherwise = self._otherwise() if end == _ELSE else None
        self._pop_variables(variables)
        return nodes.Branch(pipe.at, "range", pipe, body, otherwise)

    def _otherwise(self) -> nodes.Block:
        """The nodes after ``{{else}}``, up to and including the end."""
        body, end = self._items()
        if end != _END:
            raise self._stream.error(f"expected end; found {end}")
        return body

    def _in_range(self, token: Token) -> int:
        """The position of a ``break`` or ``continue``; it must be in a loop."""
        word = f"{{{{{token.text}}}}}"
        self._stream.expect(kinds.RIGHT, word)
        if not self._range_depth:
            raise self._stream.error(f"{word} outside {{{{range}}}}")
        return token.at

    def _template(self, _: Token) -> nodes.Node:
        at, name = self._name("template clause")
        pipe = None
        if self._stream.peek_non_space().kind == kinds.RIGHT:
            self._stream.next_non_space()
        else:
            pipe = self._pipeline("template clause", kinds.RIGHT)
        return nodes.Call(at, name, pipe)

    def _block(self, _: Token) -> nodes.Node:
        at, name = self._name("block clause")
        pipe = self._pipeline("block clause", kinds.RIGHT)
        self._nested(lambda inner: inner.body_of(name, "block clause", self._stream))
        return nodes.Call(at, name, pipe)

    def _name(self, context: str) -> tuple[int, str]:
        token = self._stream.next_non_space()
        if token.kind not in (kinds.STRING, kinds.RAW_STRING):
            raise self._stream.unexpected(token, context)
        return token.at, self._literal(token, unquote)

    # -- pipelines ---------------------------------------------------------------------------------

    def _pop_variables(self, count: int) -> None:
        """Drop all variables but the first ``count``: their scope ends."""
        while len(self._variables) > count:
            self._declared[self._variables.pop()] -= 1

    def _pipeline(self, context: str, end: str) -> nodes.Pipe:
        """Parse up to and including a token of the kind ``end``."""
        at = self._stream.peek_non_space().at
        variables, assigns = self._declarations(context)
        commands: list[nodes.Command] = []
        while (token := self._stream.next_non_space()).kind != end:
            if token.kind not in self._terms:
                raise self._stream.unexpected(token, context)
            self._stream.position -= 1
            commands.append(self._command())
        self._check(commands, context)
        return nodes.Pipe(at, variables, assigns, tuple(commands))

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """The names of ``$x :=``, ``$x =`` or ``$i, $x :=``, and whether they are assigned."""
        stream = self._stream
        names: list[str] = []
        while (variable := stream.peek_non_space()).kind == kinds.VARIABLE:
            start = stream.position
            stream.next()
            following = stream.peek_non_space()
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
            if stream.peek_non_space().kind not in (kinds.VARIABLE, kinds.RIGHT, kinds.CLOSE):
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
        at = stream.peek_non_space().at
        args: list[nodes.Operand] = []
        while True:
            stream.peek_non_space()
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
        token = self._stream.next_non_space()
        read = self._terms.get(token.kind)
        if read is None:
            self._stream.position -= 1
            return None
        return read(token)

    def _literal(self, token: Token, read: Callable[[str], _T]) -> _T:
        """The value of a literal."""
        try:
            return read(token.text)
        except ValueError as reason:
            raise self._stream.error(str(reason)) from None

    def _string(self, token: Token) -> nodes.Operand:
        return nodes.String(token.at, token.text, self._literal(token, unquote))

    def _number(self, token: Token) -> nodes.Operand:
        value = self._literal(token, _NUMBERS[token.kind])
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
        if self._parentheses_depth >= PARENTHESES_LIMIT:
            raise self._stream.error("max expression depth exceeded")
        self._parentheses_depth += 1
        pipe = self._pipeline("parenthesized pipeline", kinds.CLOSE)
        self._parentheses_depth -= 1
        return pipe


def _is_blank(block: nodes.Block) -> bool:
    return all(isinstance(node, nodes.Text) and not node.text.strip() for node in block)
