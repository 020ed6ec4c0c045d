"""The filters and methods that chat templates may call, with guards against those that could make
much out of little.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from jinja2 import filters as jinja
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined
from jinja2.utils import pass_environment

from ollama_async.prompts.render_limits import (
    allow_items,
    allow_number,
    allow_set,
    allow_text,
    join_pieces,
    take,
    weigh,
)

_AS_THEY_ARE = """
    abs attr capitalize count d default dictsort filesizeformat first float groupby items last
    length lower map max min reject rejectattr reverse select selectattr sort title truncate unique
    upper urlencode wordcount
"""

_PLAIN_FORMAT = re.compile(r"%(?:[sdrif%]|\.[0-9]f)|[^%]")
_MAX_INDENT = 64
_MAX_PRECISION = 300


def show(value: Any) -> str:
    """``value`` as output or ``~`` prints it. Objects without a text of their own show their type.

    :raises SecurityError: the text would be too long.
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | Undefined):
        return str(value)
    if isinstance(value, dict | list | tuple):
        weigh(value)
        return str(value)
    return f"<{type(value).__name__}>"


def fill_in(template: str, values: Any) -> str:
    """``template % values``, without widths.

    :raises SecurityError: ``template`` formats more than plain values.
    """
    if _PLAIN_FORMAT.sub("", template):
        raise SecurityError(f"format {template!r} is not allowed")
    weigh(values if isinstance(values, tuple) else (values,))
    return str(template % values)


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, before, after = show(value), show(old), show(new)
    count = -1 if count is None else count
    found = text.count(before)
    allow_text(len(text) + (found if count < 0 else min(found, count)) * len(after))
    return text.replace(before, after, count)


@pass_environment
def join(
    environment: Environment, values: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        values = map(jinja.make_attrgetter(environment, attribute), values)
    return _join(show(d), map(show, values))


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in Hugging Face's library: plain JSON, no escapes for HTML or for letters."""
    if indent is not None and indent > _MAX_INDENT:
        raise SecurityError(f"indent {indent} is not allowed")
    if isinstance(value, Iterator):
        value = take(value)
    weigh(value)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_as_json,
    )
    if indent is None:
        return encoder.encode(value)
    return join_pieces(encoder.iterencode(value))  # grows with the square of the depth


def _as_json(value: Any) -> None:
    """A missing value is null. :raises TypeError: for anything else."""
    if not isinstance(value, Undefined):
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = show(text)
    by = len(width) if isinstance(width, str) else width
    allow_text(len(text) + by * (len(text.splitlines()) + 1))
    return jinja.do_indent(text, width, first, blank)


def _round(
    value: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common"
) -> float:
    if abs(precision) > _MAX_PRECISION:
        raise SecurityError(f"precision {precision} is not allowed")
    return jinja.do_round(value, precision, method)


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    if isinstance(value, str):
        allow_number(4 * len(value))  # what a hexadecimal digit holds
    return jinja.do_int(value, default, base)


@pass_environment
def _sum(
    environment: Environment,
    values: Iterable[Any],
    attribute: str | int | None = None,
    start: float = 0,
) -> Any:
    """Of numbers only; adding up lists would take quadratic time."""
    if not isinstance(start, int | float):
        raise SecurityError("sum is for numbers")
    if attribute is not None:
        values = map(jinja.make_attrgetter(environment, attribute), values)
    return sum(values, start)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> list[Any]:
    allow_items(linecount)
    return take(jinja.do_batch(value, linecount, fill_with))


def _slice(value: Iterable[Any], slices: int, fill_with: Any = None) -> list[Any]:
    allow_items(slices)
    return take(jinja.sync_do_slice(take(value), slices, fill_with))


def _escape(value: Any) -> str:
    text = html.escape(show(value)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    allow_text(len(text))
    return text


ALL: dict[str, Callable[..., Any]] = {
    **{name: FILTERS[name] for name in _AS_THEY_ARE.split()},
    "batch": _batch,
    "center": lambda value, width=80: _padded("center")(show(value), width),
    "e": _escape,
    "escape": _escape,
    "format": lambda template, *values: fill_in(show(template), values),
    "indent": _indent,
    "int": _int,
    "join": join,
    "list": take,
    "replace": replace,
    "round": _round,
    "safe": show,
    "slice": _slice,
    "string": show,
    "sum": _sum,
    "tojson": to_json,
    "trim": lambda value, chars=None: _stripped("strip")(show(value), chars),
}


# ----------------------------------------------------------------- methods

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
    """Whether it is an allowed method that changes its owner."""
    return name in _CHANGES.get(type(owner), "").split()


def call_method(owner: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """``owner.name(*args, **options)``; ``owner`` is of a type built into Python.

    :raises SecurityError: the method is not allowed, or its result would be too large.
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
        pieces[at], pieces[at + 1] = "", show(value)
        length += len(pieces[at + 1])
        allow_text(length)
    return "".join(pieces)


def _join(between: str, values: Any) -> str:
    texts = take(values)
    allow_text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _splitting(name: str) -> Callable[..., list[str]]:
    def split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        parts = text.count(sep) if sep else len(text) // 2
        allow_items(min(parts, maxsplit) if maxsplit >= 0 else parts)
        found: list[str] = getattr(text, name)(sep, maxsplit)
        return found

    return split


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
    "replace": replace,
    "rjust": _padded("rjust"),
    "rsplit": _splitting("rsplit"),
    "rstrip": _stripped("rstrip"),
    "split": _splitting("split"),
    "splitlines": _splitlines,
    "strip": _stripped("strip"),
    "zfill": _padded("zfill"),
}
