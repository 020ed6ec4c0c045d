"""Limits for the values of a template, and the size of a value before it becomes text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.gocompat.render_budget import TEXT_LIMIT

ITEMS_LIMIT = 1 << 20
_WEIGHT_OF_ANY = 8  # so that a million of them is too much: looking at each takes time
NUMBER_LIMIT_BITS = 4096
SET_LIMIT = 256


def allow_text(length: int) -> None:
    """:raises SecurityError: text of ``length`` characters is too long."""
    if length > TEXT_LIMIT:
        raise SecurityError(f"text of more than {TEXT_LIMIT >> 20} MiB")


def allow_items(count: int) -> None:
    """:raises SecurityError: a sequence of ``count`` items is too long."""
    if count > ITEMS_LIMIT:
        raise SecurityError(f"a list of more than {ITEMS_LIMIT} items")


def allow_number(bits: int) -> None:
    """:raises SecurityError: a number of ``bits`` bits is too large."""
    if bits > NUMBER_LIMIT_BITS:
        raise SecurityError("a number that is too large")


def allow_set(characters: str | None) -> None:
    """:raises SecurityError: stripping these characters would take the product of both lengths."""
    if characters is not None and len(characters) > SET_LIMIT:
        raise SecurityError(f"a set of more than {SET_LIMIT} characters")


def join_pieces(pieces: Iterable[str]) -> str:
    """``pieces`` as one text.

    :raises SecurityError: it would be too long; the rest of ``pieces`` is not made then.
    """
    parts = []
    length = 0
    for piece in pieces:
        length += len(piece)
        allow_text(length)
        parts.append(piece)
    return "".join(parts)


def take(values: Iterable[Any]) -> list[Any]:
    """``values`` as a list.

    :raises SecurityError: there are too many.
    """
    items = list(islice(values, ITEMS_LIMIT + 1))
    allow_items(len(items))
    return items


def weigh(value: Any) -> int:
    """Roughly the length of ``value`` as text. A value that is contained twice counts twice.

    :raises SecurityError: more than :data:`TEXT_LIMIT`.
    """
    if isinstance(value, str):
        allow_text(len(value))
        return len(value)
    weight = 0
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            weight += len(part)
        elif isinstance(part, dict):
            left += part.keys()
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part
        weight += _WEIGHT_OF_ANY
        allow_text(weight + len(left))
    return weight
