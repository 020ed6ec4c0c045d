"""Which methods of text, lists and dicts a template may call, and with what."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.prompts import jinja_builtins
from ollama_async.prompts.render_limits import allow_items, allow_set, allow_text, take

_HARMLESS = {
    str: """
        capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit
        isidentifier islower isnumeric isprintable isspace istitle isupper lower partition
        removeprefix removesuffix rfind rindex rpartition startswith swapcase title upper
    """,
    dict: "copy get items keys values",
    list: "copy count index",
    tuple: "count index",
    range: "count index",
    int: "bit_length",
    float: "is_integer",
    bool: "",
}


_FIELD = re.compile(r"(\{\{|\}\})|\{(\w{0,64})\}")

_CHANGES: dict[type, str] = {
    list: "append extend insert pop remove reverse",
    dict: "pop setdefault update",
}


def is_change(owner: Any, name: str) -> bool:
    """Whether it is a method that changes its owner, and allowed."""
    return name in _CHANGES.get(type(owner), "").split()


def call(owner: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """``owner.name(*args, **options)``; ``owner`` is of a type built into Python.

    :raises SecurityError: the method is not for templates, or would make too much.
    """
    if isinstance(owner, str) and name in _GUARDED:
        return _GUARDED[name](owner, *args, **options)
    if is_change(owner, name):
        return _change(owner, name, args, options)
    if name not in _HARMLESS.get(type(owner), "").split():
        raise SecurityError(f"method {name!r} of {type(owner).__name__} is not allowed")
    return getattr(owner, name)(*args, **options)


def _change(owner: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if name in {"extend", "update"}:
        args = tuple(arg if isinstance(arg, dict) else take(arg) for arg in args)
        allow_items(len(owner) + sum(map(len, args)))
    allow_items(len(owner) + 1)
    return getattr(owner, name)(*args, **options)


def _format(text: str, *values: Any, **named: Any) -> str:
    """``{}``, ``{0}`` and ``{name}``, without attributes and without widths."""
    pieces = _FIELD.split(text)
    if any("{" in piece or "}" in piece for piece in pieces[::3]):
        raise SecurityError(f"format {text!r} is not allowed")
    unnamed = iter(values)
    length = 0
    for at in range(1, len(pieces), 3):
        brace, name = pieces[at], pieces[at + 1]
        if brace:
            pieces[at], pieces[at + 1] = brace[0], ""
            continue
        value = next(unnamed) if not name else values[int(name)] if name.isdigit() else named[name]
        pieces[at], pieces[at + 1] = "", jinja_builtins.show(value)
        length += len(pieces[at + 1])
        allow_text(length)
    return "".join(pieces)


def _join(between: str, values: Any) -> str:
    texts = take(values)
    allow_text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    _allow_parts(text, sep, maxsplit)
    return text.split(sep, maxsplit)


def _rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    _allow_parts(text, sep, maxsplit)
    return text.rsplit(sep, maxsplit)


def _allow_parts(text: str, sep: str | None, maxsplit: int) -> None:
    parts = text.count(sep) if sep else len(text) // 2
    allow_items(min(parts, maxsplit) if maxsplit >= 0 else parts)


def _splitlines(text: str, keepends: bool = False) -> list[str]:
    allow_items(text.count("\n") + text.count("\r"))
    return text.splitlines(keepends)


def _padded(name: str) -> Callable[..., str]:
    def pad(text: str, width: int, *fill: str) -> str:
        allow_text(width)
        padded: str = getattr(text, name)(width, *fill)
        return padded

    return pad


def _stripped(name: str) -> Callable[..., str]:
    def strip(text: str, characters: str | None = None) -> str:
        allow_set(characters)
        stripped: str = getattr(text, name)(characters)
        return stripped

    return strip


_GUARDED: dict[str, Callable[..., Any]] = {
    "center": _padded("center"),
    "format": _format,
    "join": _join,
    "ljust": _padded("ljust"),
    "lstrip": _stripped("lstrip"),
    "replace": jinja_builtins.replace,
    "rjust": _padded("rjust"),
    "rsplit": _rsplit,
    "rstrip": _stripped("rstrip"),
    "split": _split,
    "splitlines": _splitlines,
    "strip": _stripped("strip"),
    "zfill": _padded("zfill"),
}
