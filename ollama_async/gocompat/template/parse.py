"""From tokens to a tree, or to the error that Go reports."""

from __future__ import annotations

from collections.abc import Callable

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.strconv import quote
from ollama_async.gocompat.template import lex as kinds
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.lex import Token, lex
from ollama_async.gocompat.template.operands import Operands
from ollama_async.gocompat.template.stream import Stream

SOURCE_LIMIT = 1 << 18
"""Characters that a template may have; the longest in use have some 20,000. Each may cost the
parser some microseconds.
"""

NESTING_LIMIT = 100
"""Blocks inside one another: each costs the parser, and the one who runs it, several calls."""


def parse(source: str) -> nodes.Tree:
    """:raises TemplateFailed: it is no template, in Go's words."""
    if len(source) > SOURCE_LIMIT:
        raise TemplateFailed(f"the template is longer than {SOURCE_LIMIT} characters")
    blocks: dict[str, nodes.Block] = {}
    parser = _Parser(Stream(source, lex(source)), blocks, depth=0)
    parser.whole()
    return nodes.Tree(source, blocks)


class _Parser:
    """Of one template; each ``define`` and ``block`` has its own, on the same stream."""

    def __init__(self, stream: Stream, blocks: dict[str, nodes.Block], *, depth: int) -> None:
        self._stream = stream
        self._operands = Operands(stream)
        self._blocks = blocks
        self._range_depth = 0
        self._depth = depth
        self._controls: dict[str, Callable[[Token], nodes.Node]] = {
            "if": self._if,
            "with": self._with,
            "range": self._range,
            "template": self._template,
            "block": self._block,
            "break": self._break,
            "continue": self._continue,
        }

    def whole(self) -> None:
        stream = self._stream
        items: list[nodes.Node] = []
        while (token := stream.peek()).kind != kinds.EOF:
            if token.kind == kinds.LEFT and self._begins_definition():
                self._nested().definition()
                continue
            node = self._text_or_action()
            if isinstance(node, _End):
                raise stream.error(f"unexpected {node}")
            items.append(node)
        self._add("", tuple(items))

    def _begins_definition(self) -> bool:
        start = self._stream.position
        self._stream.next()
        if self._stream.next_word().kind == "define":
            return True
        self._stream.position = start
        return False

    def _nested(self) -> _Parser:
        return _Parser(self._stream.fork(), self._blocks, depth=self._depth)

    def definition(self) -> None:
        token = self._stream.next_word()
        if token.kind not in (kinds.STRING, kinds.RAW_STRING):
            raise self._stream.unexpected(token, "define clause")
        name = self._operands.string(token)
        self._stream.expect(kinds.RIGHT, "define clause")
        self.body_of(name, "define clause", self._stream)

    def body_of(self, name: str, context: str, complaining: Stream) -> None:
        """Reads the contents of the template ``name`` and its end."""
        body, end = self._items()
        if end.word != "end":
            raise complaining.error(f"unexpected {end} in {context}")
        self._add(name, body)

    def _add(self, name: str, block: nodes.Block) -> None:
        """The last definition that is not blank counts, and there may be only one."""
        if name not in self._blocks or _is_blank(self._blocks[name]):
            self._blocks[name] = block
        elif not _is_blank(block):
            # Go says the word twice
            raise self._stream.error(f"template: multiple definition of template {quote(name)}")

    def _items(self) -> tuple[nodes.Block, _End]:
        """Everything up to the next ``end`` or ``else`` that belongs to nobody inside."""
        self._depth += 1
        if self._depth > NESTING_LIMIT:
            raise self._stream.error(f"blocks nested more than {NESTING_LIMIT} deep")
        items: list[nodes.Node] = []
        while self._stream.peek_word().kind != kinds.EOF:
            node = self._text_or_action()
            if isinstance(node, _End):
                self._depth -= 1
                return tuple(items), node
            items.append(node)
        raise self._stream.error("unexpected EOF")

    def _text_or_action(self) -> nodes.Node | _End:
        token = self._stream.next_word()
        if token.kind == kinds.TEXT:
            return nodes.Text(token.at, token.text)
        if token.kind != kinds.LEFT:
            raise self._stream.unexpected(token, "input")
        self._stream.begin_action(token)
        node = self._action()
        self._stream.end_action()
        return node

    def _action(self) -> nodes.Node | _End:
        token = self._stream.next_word()
        control = self._controls.get(token.kind)
        if control is not None:
            return control(token)
        if token.kind == "end":
            self._stream.expect(kinds.RIGHT, "end")
            return _End("end")
        if token.kind == "else":
            return self._else()
        self._stream.position -= 1
        return nodes.Action(token.at, self._operands.pipeline("command", kinds.RIGHT))

    def _else(self) -> _End:
        if self._stream.peek_word().kind not in ("if", "with"):
            self._stream.expect(kinds.RIGHT, "else")
        return _End("else")

    def _if(self, _: Token) -> nodes.Node:
        return self._chain("if", nodes.If)

    def _with(self, _: Token) -> nodes.Node:
        return self._chain("with", nodes.With)

    def _chain(self, word: str, kind: type[nodes.If | nodes.With]) -> nodes.If | nodes.With:
        """``if``, all of its ``else if`` and its ``else``; the same for ``with``."""
        variables = self._operands.declared()
        links = [self._link(word)]
        otherwise = None
        while links[-1][2].word == "else":
            if self._stream.peek().kind == word:
                self._stream.next()
                self._depth += 1  # in the tree each link is inside the one before
                links.append(self._link(word))
                continue
            otherwise, end = self._items()
            if end.word != "end":
                raise self._stream.error(f"expected end; found {end}")
            break
        self._operands.forget(variables)
        self._depth -= len(links) - 1
        pipe, body, _ = links.pop()
        node = kind(pipe.at, pipe, body, otherwise)
        for pipe, body, _ in reversed(links):
            node = kind(pipe.at, pipe, body, (node,))
        return node

    def _link(self, word: str) -> tuple[nodes.Pipe, nodes.Block, _End]:
        pipe = self._operands.pipeline(word, kinds.RIGHT)
        return (pipe, *self._items())

    def _range(self, _: Token) -> nodes.Node:
        variables = self._operands.declared()
        pipe = self._operands.pipeline("range", kinds.RIGHT)
        self._range_depth += 1
        body, end = self._items()
        self._range_depth -= 1
        otherwise = None
        if end.word == "else":
            otherwise, end = self._items()
            if end.word != "end":
                raise self._stream.error(f"expected end; found {end}")
        self._operands.forget(variables)
        return nodes.Range(pipe.at, pipe, body, otherwise)

    def _break(self, token: Token) -> nodes.Node:
        self._must_be_in_range("break")
        return nodes.Break(token.at)

    def _continue(self, token: Token) -> nodes.Node:
        self._must_be_in_range("continue")
        return nodes.Continue(token.at)

    def _must_be_in_range(self, word: str) -> None:
        self._stream.expect(kinds.RIGHT, f"{{{{{word}}}}}")
        if not self._range_depth:
            raise self._stream.error(f"{{{{{word}}}}} outside {{{{range}}}}")

    def _template(self, _: Token) -> nodes.Node:
        at, name = self._name("template clause")
        pipe = None
        if self._stream.peek_word().kind == kinds.RIGHT:
            self._stream.next_word()
        else:
            pipe = self._operands.pipeline("template clause", kinds.RIGHT)
        return nodes.Call(at, name, pipe)

    def _block(self, _: Token) -> nodes.Node:
        at, name = self._name("block clause")
        pipe = self._operands.pipeline("block clause", kinds.RIGHT)
        self._nested().body_of(name, "block clause", self._stream)
        return nodes.Call(at, name, pipe)

    def _name(self, context: str) -> tuple[int, str]:
        token = self._stream.next_word()
        if token.kind not in (kinds.STRING, kinds.RAW_STRING):
            raise self._stream.unexpected(token, context)
        return token.at, self._operands.string(token)


class _End:
    """``{{end}}`` or ``{{else}}``; the latter's right delimiter may still be to come."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __str__(self) -> str:
        return f"{{{{{self.word}}}}}"


def _is_blank(block: nodes.Block) -> bool:
    return all(isinstance(node, nodes.Text) and not node.text.strip() for node in block)
