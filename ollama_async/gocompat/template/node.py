"""What a template says, as a tree. ``str(node)`` is the source that Go shows in errors.

``at`` is an index into the source. Trees are shared between renders: nobody changes one.
"""

from __future__ import annotations

import msgspec

from ollama_async.gocompat.strconv import quote


class Dot(msgspec.Struct, frozen=True):
    at: int

    def __str__(self) -> str:
        return "."


class Nil(msgspec.Struct, frozen=True):
    at: int

    def __str__(self) -> str:
        return "nil"


class Bool(msgspec.Struct, frozen=True):
    at: int
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


class Number(msgspec.Struct, frozen=True):
    """``value`` may be an integer that only fits 64 bits without a sign."""

    at: int
    text: str
    value: int | float | complex

    def __str__(self) -> str:
        return self.text


class String(msgspec.Struct, frozen=True):
    at: int
    literal: str
    value: str

    def __str__(self) -> str:
        return self.literal


class Identifier(msgspec.Struct, frozen=True):
    """A function's name."""

    at: int
    name: str

    def __str__(self) -> str:
        return self.name


class Field(msgspec.Struct, frozen=True):
    """``.A.B``."""

    at: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "." + ".".join(self.names)


class Variable(msgspec.Struct, frozen=True):
    """``$x.A.B``; the first of ``names`` is the variable's, with its dollar."""

    at: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


class Chain(msgspec.Struct, frozen=True):
    """``(pipeline).A.B``."""

    at: int
    node: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{_in_parentheses(self.node)}.{'.'.join(self.names)}"


class Command(msgspec.Struct, frozen=True):
    """A function or value with its arguments; ``args`` is never empty."""

    at: int
    args: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(_in_parentheses(arg) for arg in self.args)


class Pipe(msgspec.Struct, frozen=True):
    """Commands, each getting the one before's value; ``assigns``: ``=`` instead of ``:=``."""

    at: int
    variables: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        commands = " | ".join(map(str, self.commands))
        if not self.variables:
            return commands
        return f"{', '.join(self.variables)} {'=' if self.assigns else ':='} {commands}"


Operand = Dot | Nil | Bool | Number | String | Identifier | Field | Variable | Chain | Pipe


class Text(msgspec.Struct, frozen=True):
    at: int
    text: str


class Action(msgspec.Struct, frozen=True):
    at: int
    pipe: Pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


class Break(msgspec.Struct, frozen=True):
    at: int


class Continue(msgspec.Struct, frozen=True):
    at: int


class If(msgspec.Struct, frozen=True):
    at: int
    pipe: Pipe
    body: Block
    otherwise: Block | None


class With(msgspec.Struct, frozen=True):
    at: int
    pipe: Pipe
    body: Block
    otherwise: Block | None


class Range(msgspec.Struct, frozen=True):
    at: int
    pipe: Pipe
    body: Block
    otherwise: Block | None


class Call(msgspec.Struct, frozen=True):
    """``{{template "name" pipe}}``."""

    at: int
    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        argument = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{argument}}}}}"


Branch = If | With | Range
Node = Text | Action | Break | Continue | If | With | Range | Call
Block = tuple[Node, ...]


class Tree(msgspec.Struct, frozen=True):
    """All templates that one source defines; the whole source's own is named ``""``."""

    source: str
    blocks: dict[str, Block]


def _in_parentheses(node: Operand) -> str:
    return f"({node})" if isinstance(node, Pipe) else str(node)
