"""``show``: describes a model on a page of small tables, or prints one part of it verbatim."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ollama_async.api.ollama_models import Tensor, format_parameter_count
from ollama_async.cli.client import Client, CommandFailed
from ollama_async.cli.formatting import format_table

PARTS = ("license", "modelfile", "parameters", "system", "template")
"""Each is a flag, and a text field of the answer."""

_TEXT_COLUMNS = 100
_LIST_COLUMNS = 10
_LINES_SHOWN = 2

Rows = list[tuple[str, ...]]


class Details(msgspec.Struct):
    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


class Message(msgspec.Struct):
    role: str
    content: str = ""


class ModelInfo(msgspec.Struct):
    """The response of ``/api/show``; a server may omit fields."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details = msgspec.field(default_factory=Details)
    messages: list[Message] | None = None
    remote_model: str = ""
    remote_host: str = ""
    model_info: dict[str, Any] | None = None
    projector_info: dict[str, Any] | None = None
    tensors: list[Tensor] | None = None
    capabilities: list[str] | None = None
    requires: str = ""


def show(client: Client, arguments: argparse.Namespace) -> int:
    parts = [part for part in PARTS if getattr(arguments, part)]
    if len(parts) > 1:
        *others, last = (f"'--{part}'" for part in PARTS)
        raise CommandFailed(f"only one of {', '.join(others)}, or {last} can be specified")
    model = fetch_info(client, arguments.words[0], is_verbose=arguments.verbose)
    if parts:
        text: str = getattr(model, parts[0])
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        print(format_page(model, is_verbose=arguments.verbose), end="")
    return 0


def fetch_info(client: Client, name: str, *, is_verbose: bool = False) -> ModelInfo:
    """:raises CommandFailed: the model does not exist, or the response is invalid."""
    answer = client.call("POST", "/api/show", {"model": name, "verbose": is_verbose})
    try:
        return msgspec.convert(answer, ModelInfo)
    except msgspec.ValidationError as reason:
        raise CommandFailed(f"unexpected answer to /api/show: {reason}") from None


def format_page(model: ModelInfo, *, is_verbose: bool = False) -> str:
    """The sections that are not empty, each followed by a blank line."""
    sections: list[tuple[str, Rows]] = [
        ("Model", _model(model)),
        ("Capabilities", [(word,) for word in model.capabilities or []]),
        ("Projector", _projector(model.projector_info or {})),
        ("Parameters", [tuple(line.split()) for line in model.parameters.splitlines()]),
    ]
    if is_verbose:
        sections += [
            ("Metadata", _metadata(model.model_info or {})),
            (
                "Tensors",
                [(each.name, each.type, _list(each.shape)) for each in model.tensors or ()],
            ),
        ]
    sections += [("System", _first_lines(model.system)), ("License", _first_lines(model.license))]
    return "".join(_section(title, rows) for title, rows in sections if rows)


def _section(title: str, rows: Rows) -> str:
    return f"  {title}\n{format_table([('', *row) for row in rows])}\n"


def _model(model: ModelInfo) -> Rows:
    info = model.model_info or {}
    architecture = str(info.get("general.architecture") or model.details.family)
    rows = [
        ("Remote model", model.remote_model),
        ("Remote URL", model.remote_host),
        ("architecture", architecture),
        ("parameters", model.details.parameter_size or _count(info, "general.parameter_count")),
        ("context length", _integer(info, f"{architecture}.context_length")),
        ("embedding length", _integer(info, f"{architecture}.embedding_length")),
        ("quantization", model.details.quantization_level),
        ("requires", model.requires),
    ]
    return _not_empty(rows)


def _projector(info: Mapping[str, Any]) -> Rows:
    architecture = str(info.get("general.architecture", ""))
    rows = [
        ("architecture", architecture),
        ("parameters", _count(info, "general.parameter_count")),
        ("embedding length", _integer(info, f"{architecture}.vision.embedding_length")),
        ("dimensions", _integer(info, f"{architecture}.vision.projection_dim")),
    ]
    return _not_empty(rows)


def _not_empty(rows: Iterable[tuple[str, str]]) -> Rows:
    return [row for row in rows if row[1]]


def _integer(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key)
    return f"{value:.0f}" if isinstance(value, int | float) else ""


def _count(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key)
    return format_parameter_count(int(value)) if isinstance(value, int | float) else ""


def _first_lines(text: str) -> Rows:
    """The first non-blank lines, wrapped, with dots if there are more."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows: Rows = [
        (part,) for line in lines[:_LINES_SHOWN] for part in textwrap.wrap(line, _TEXT_COLUMNS)
    ]
    return [*rows, ("...",)] if len(lines) > _LINES_SHOWN else rows


def _metadata(info: Mapping[str, Any]) -> Rows:
    return [(key, _value(info[key])) for key in sorted(info) if info[key] is not None]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if isinstance(value, list):
        return _list(value, columns=_LIST_COLUMNS)
    line, *more = str(value).splitlines() or [""]
    return f"{line[:_TEXT_COLUMNS]}..." if more or len(line) > _TEXT_COLUMNS else line


def _list(values: list[Any], columns: int | None = None) -> str:
    """``[1 2 3]``; limited to ``columns`` (at least one value): ``[1 2 ...+9 more]``."""
    words = list(_fitting_words(values, columns))
    left = len(values) - len(words)
    return f"[{' '.join(words)}{f' ...+{left} more' if left else ''}]"


def _fitting_words(values: list[Any], columns: int | None) -> Iterator[str]:
    used = 1
    for index, value in enumerate(values):
        word = _value(value)
        used += len(word) + (2 if index else 0)
        if columns is not None and index and used > columns:
            return
        yield word
