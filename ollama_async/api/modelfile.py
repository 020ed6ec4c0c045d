"""Parses and prints Modelfiles, and finds the files of a model in a folder.

A Modelfile is Ollama's text format that describes a model:

::

    # a comment
    FROM ./weights.gguf
    PARAMETER stop "</s>"
    SYSTEM "text that may
    span lines"
    MESSAGE user Hello

A line is a command, in any case, and its value. A value that starts with one or three quotes ends
with the same quotes at the end of a line, maybe a later one; nothing is escaped. Values without
quotes are stripped; unprintable characters are dropped. Errors have Ollama's texts, but a CRLF
counts as one line break, and the line number is that of the faulty command.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api.options import parse_parameter

COMMANDS = (
    *("from", "license", "template", "system", "adapter", "draft", "renderer", "parser"),
    *("parameter", "message", "requires"),
)

_BLANKS = " \t"
_COMMAND = re.compile(r"[ \t]*([A-Za-z]*)")
_KEY = {"parameter": re.compile(r"[A-Za-z0-9_]*"), "message": re.compile(r"[A-Za-z]*")}
_VERSION = re.compile(r"\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_NO_COMMAND = "command must be one of " + ", ".join(f'"{name}"' for name in COMMANDS[:-1])
_NO_COMMAND += f', or "{COMMANDS[-1]}"'
_NO_ROLE = 'message role must be one of "system", "user", or "assistant"'
_EOF = "unexpected EOF"

_WEIGHTS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("adapter*.safetensors",),
    ("*.gguf",),
)
"""The first kind that exists counts; later kinds are the same weights in another format."""
_BESIDE = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model")
"""What safetensors need besides: shapes, vocabulary, template."""

NO_MODEL_FILES = "no Modelfile or safetensors files found"


class Command(msgspec.Struct, frozen=True):
    """``name``: one of :data:`COMMANDS`. ``key``: a parameter's name or a message's role."""

    name: str
    value: str
    key: str = ""

    def __str__(self) -> str:
        """As a Modelfile has it. :raises ValueError: no kind of quotes can hold the value."""
        words = [self.name.upper(), *filter(None, [self.key]), _quoted(self.value)]
        return " ".join(words)


class Modelfile(msgspec.Struct, frozen=True):
    """Commands in order; printing and parsing again gives the same."""

    commands: tuple[Command, ...]

    def values(self, name: str) -> list[str]:
        """The values of a command that may be repeated (from, license)."""
        return [command.value for command in self.commands if command.name == name]

    def last(self, name: str) -> str:
        """The value of a command of which the last one counts; "" without one."""
        return (self.values(name) or [""])[-1]

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Role and text, in order."""
        return [(each.key, each.value) for each in self.commands if each.name == "message"]

    @property
    def requires(self) -> str:
        """:raises ValueError: not a version."""
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
    """``text`` if it is a version that a model may require, or "". :raises ValueError: neither."""
    if text and not _VERSION.fullmatch(text.removeprefix("v")):
        raise ValueError("requires must be a valid semver (e.g. 0.14.0)")
    return text


def parse(data: bytes | str) -> Modelfile:
    """Parse a Modelfile; bytes are UTF-8 unless a byte order mark says otherwise.

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
    """After each line end. One by one, so that other threads can run in between."""
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
    """The command's name, and the line from the blank after it."""
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
    """The value that starts with ``first`` and may continue in line ``at``; the line after it.

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
    """The value as it can be parsed back, without quotes if possible."""
    candidates = [value] if value else []
    candidates += [f'"""{value}"""', f'"{value}"'] if '"' in value else [f'"{value}"']
    for text in candidates:
        lines = _split(text)
        try:
            if _value(lines[0], lines, 1) == (value, len(lines)):
                return text
        except ValueError:
            continue
    raise ValueError("the text cannot be quoted in a Modelfile: it has lines that end with quotes")


def files_in(folder: Path) -> dict[str, Path]:
    """The files of the model in ``folder`` by their names there; see :func:`files_of_model`.

    :raises ValueError: :data:`NO_MODEL_FILES`.
    :raises OSError: the folder cannot be read.
    """
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: named[name] for name in files_of_model(named)}


def files_of_model(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that make a model. ``names`` are relative, with slashes; hidden files do
    not count.

    :raises ValueError: :data:`NO_MODEL_FILES`.
    """
    known = sorted(name for name in names if not name.startswith(".") and "/." not in name)
    for kinds in _WEIGHTS:
        weights = [name for name in known if _matches(name, kinds)]
        if weights:
            beside = [name for name in known if _matches(name, _BESIDE)]
            return weights if kinds == ("*.gguf",) else weights + beside
    raise ValueError(NO_MODEL_FILES)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """As in a shell: a star does not match a slash."""
    return any(
        name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns
    )
