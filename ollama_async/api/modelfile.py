"""The Modelfile: Ollama's text format that describes a model.

::

    # a comment
    FROM ./weights.gguf
    PARAMETER stop "</s>"
    SYSTEM "text that may
    span lines"
    MESSAGE user Hello

A command, in any case, and its value up to the end of the line. A value that begins with one or
three quotes ends with the same at the end of a line, maybe a later one; nothing is escaped. Values
without quotes are stripped; characters that cannot be printed are dropped. Errors have Ollama's
words; but a CRLF counts as one line, and the line is the one on which the faulty command stands.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ollama_async.api.options import parse_parameter

COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)

_BLANKS = " \t"
_COMMAND = re.compile(r"[ \t]*([A-Za-z]*)")
_KEY = {"parameter": re.compile(r"[A-Za-z0-9_]*"), "message": re.compile(r"[A-Za-z]*")}
_VERSION = re.compile(r"\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_NO_COMMAND = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)
_NO_ROLE = 'message role must be one of "system", "user", or "assistant"'
_EOF = "unexpected EOF"


class Command(msgspec.Struct, frozen=True):
    """``name``: one of :data:`COMMANDS`. ``key``: a parameter's name or a message's role."""

    name: str
    value: str
    key: str = ""

    def __str__(self) -> str:
        """One command as text. :raises ValueError: no kind of quotes can hold the value."""
        words = [self.name.upper(), *filter(None, [self.key]), _quoted(self.value)]
        return " ".join(words)


class Modelfile(msgspec.Struct, frozen=True):
    """Commands in their order; printing and parsing again gives the same."""

    commands: tuple[Command, ...]

    def values(self, name: str) -> list[str]:
        """All values of a command that may be repeated (from, license)."""
        return [command.value for command in self.commands if command.name == name]

    def last(self, name: str) -> str:
        """The value in force of a command of which the last one counts; "" if there is none."""
        return (self.values(name) or [""])[-1]

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Role and text, in order."""
        return [(each.key, each.value) for each in self.commands if each.name == "message"]

    @property
    def requires(self) -> str:
        """:raises ValueError: it is no version."""
        return checked_version(self.last("requires"))

    def parameters(self) -> tuple[dict[str, Any], list[str]]:
        """Typed parameters, and warnings about deprecated ones. The last counts; lists collect.

        :raises ValueError: ``unknown parameter 'x'``, ``invalid int value [abc]``, out of range.
        """
        collected: dict[str, list[str]] = {}
        for command in self.commands:
            if command.name == "parameter":
                collected.setdefault(command.key, []).append(command.value)
        typed: dict[str, Any] = {}
        warnings: list[str] = []
        for name, texts in collected.items():
            value = parse_parameter(name, texts)
            if value is None:
                warnings.append(f"warning: parameter {name} is deprecated")
            else:
                typed[name] = value
        return typed, warnings

    def __str__(self) -> str:
        """The whole text, with a line end. :raises ValueError: as :meth:`Command.__str__`."""
        return "".join(f"{command}\n" for command in self.commands)


def checked_version(text: str) -> str:
    """What a model may require: a version, or "" for any. :raises ValueError: it is none."""
    if text and not _VERSION.fullmatch(text.removeprefix("v")):
        raise ValueError("requires must be a valid semver (e.g. 0.14.0)")
    return text


def parse(data: bytes | str) -> Modelfile:
    """Read a Modelfile; bytes are UTF-8, or what their byte order mark says.

    :raises ValueError: with Ollama's text, such as ``(line 3): command must be one of …``.
    """
    text = data if isinstance(data, str) else _decoded(data)
    modelfile = Modelfile(tuple(_commands(_lines(text))))
    if not modelfile.values("from"):
        raise ValueError("no FROM line")
    return modelfile


def _decoded(data: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    return data.decode(errors="replace")


def _lines(text: str) -> list[str]:
    """Lines with their ends, so that quoted text keeps them."""
    lines = []
    for line in _split(text):
        content = line.rstrip("\r\n")
        lines.append(_printable(content) + line[len(content) :])
    return lines if lines and lines[-1] else lines[:-1]


def _split(text: str) -> list[str]:
    """After each line end. One by one, so that other threads get their turn between two."""
    return [line for line in io.StringIO(text, newline="") if line]


def _printable(line: str) -> str:
    if line.replace("\t", "").isprintable():
        return line
    return "".join(char for char in line if char.isprintable() or char == "\t")


def _commands(lines: list[str]) -> Iterator[Command]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip() or line.lstrip(_BLANKS).startswith("#"):
            at += 1
            continue
        name, rest = _command(line, at + 1)
        key = ""
        if name in _KEY:
            key, rest = _split_key(name, rest, at + 1)
        value, at = _value(rest, lines, at + 1)
        yield Command(name, value, key)


def _command(line: str, number: int) -> tuple[str, str]:
    """Name of the command, and the line from the blank after it."""
    match = _COMMAND.match(line)
    assert match is not None
    name, rest = match.group(1).lower(), line[match.end() :]
    if name in COMMANDS and not rest:
        raise ValueError(_EOF)
    if name not in COMMANDS or not rest.startswith((" ", "\t")):
        raise ValueError(f"(line {number}): {_NO_COMMAND}")
    return name, rest


def _split_key(name: str, rest: str, number: int) -> tuple[str, str]:
    rest = rest.lstrip(_BLANKS)
    match = _KEY[name].match(rest)
    key = match.group() if match else ""
    rest = rest[len(key) :]
    if not key or not rest.startswith((" ", "\t")):
        raise ValueError(f"{_EOF}: {key}" if key else _EOF)
    if name == "message" and key not in {"system", "user", "assistant"}:
        raise ValueError(f"(line {number}): {_NO_ROLE}")
    return key, rest


def _value(first: str, lines: list[str], at: int) -> tuple[str, int]:
    """The value that begins with ``first`` and may go on from line ``at``; the line after it.

    :raises ValueError: the closing quotes are missing.
    """
    first = first.lstrip()
    quotes = '"""' if first.startswith('"""') else '"' if first.startswith('"') else ""
    if not quotes:
        return first.rstrip(), at
    parts = [first]
    length = len(first)
    while True:
        tail = parts[-1].rstrip()
        length += len(tail) - len(parts[-1])
        if tail.endswith(quotes) and length >= 2 * len(quotes):
            parts[-1] = tail
            return "".join(parts)[len(quotes) : -len(quotes)], at
        if at == len(lines):
            raise ValueError(_EOF)
        length += len(parts[-1]) - len(tail) + len(lines[at])
        parts.append(lines[at])
        at += 1


def _quoted(value: str) -> str:
    """The first way of writing the value that reads back as it is, the plain one preferred."""
    ways = [value] if value else []
    ways += [f'"""{value}"""', f'"{value}"'] if '"' in value else [f'"{value}"']
    for text in ways:
        lines = _split(text)
        try:
            if _value(lines[0], lines, 1) == (value, len(lines)):
                return text
        except ValueError:
            continue
    raise ValueError("the text cannot be quoted in a Modelfile: it has lines that end with quotes")
