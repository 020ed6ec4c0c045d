"""The nodes of a template's tree. ``str(node)`` is the source that Go shows in errors.

``at`` is an index into the source. Trees are immutable and shared between renders.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ollama_async.gocompat.strconv import quote


class _Node(msgspec.Struct, frozen=True):
    at: int


class _Word(_Node, frozen=True):
    """``text`` as it stands in the source."""

    text: str

    def __str__(self) -> str:
        return self.text


class Dot(_Word, frozen=True):
    pass


class Nil(_Word, frozen=True):
    pass


class Bool(_Word, frozen=True):
    value: bool


class Number(_Word, frozen=True):
    """``value`` may be an integer that only fits 64 bits without a sign."""

    value: int | float | complex


class String(_Word, frozen=True):
    value: str


class Identifier(_Word, frozen=True):
    """A function's name."""


class Field(_Node, frozen=True):
    """``.A.B``."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "." + ".".join(self.names)


class Variable(_Node, frozen=True):
    """``$x.A.B``; the first of ``names`` is the variable's, with its dollar."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


class Chain(_Node, frozen=True):
    """``(pipeline).A.B``."""

    node: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{_in_parentheses(self.node)}.{'.'.join(self.names)}"


class Command(_Node, frozen=True):
    """A function or value with its arguments; ``args`` is never empty."""

    args: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(_in_parentheses(arg) for arg in self.args)


class Pipe(_Node, frozen=True):
    """Commands, each getting the one before's value; ``assigns``: ``=`` instead of ``:=``."""

    variables: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        commands = " | ".join(map(str, self.commands))
        if not self.variables:
            return commands
        return f"{', '.join(self.variables)} {'=' if self.assigns else ':='} {commands}"


Operand = Dot | Nil | Bool | Number | String | Identifier | Field | Variable | Chain | Pipe


class Text(_Node, frozen=True):
    text: str


class Action(_Node, frozen=True):
    pipe: Pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


class Jump(_Node, frozen=True):
    word: Literal["break", "continue"]


class Branch(_Node, frozen=True):
    word: Literal["if", "with", "range"]
    pipe: Pipe
    body: Block
    otherwise: Block | None


class Call(_Node, frozen=True):
    """``{{template "name" pipe}}``."""

    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        argument = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{argument}}}}}"


Node = Text | Action | Jump | Branch | Call
Block = tuple[Node, ...]


class Tree(msgspec.Struct, frozen=True):
    """All templates that one source defines; the whole source's own is named ``""``."""

    source: str
    blocks: dict[str, Block]


def _in_parentheses(node: Operand) -> str:
    return f"({node})" if isinstance(node, Pipe) else str(node)
