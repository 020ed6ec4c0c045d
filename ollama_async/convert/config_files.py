"""Reads the JSON files of a published model, with limits, and checks the types of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ollama_async.core.errors import BadRequest

T = TypeVar("T")

Files = Mapping[str, Path]
"""Paths by name in the published directory, with "/"."""

# Decoded JSON takes up to twenty times its size in memory. The largest tokenizer.json known has
# 33 MB, the largest of the other files 10 MB.
_TOKENIZER = "tokenizer.json"
_TOKENIZER_LIMIT_BYTES = 48 << 20
_LIMIT_BYTES = 16 << 20
_MAX_COUNT = (1 << 31) - 1
_REQUIRED: Any = object()


def read_text(files: Files, name: str, limit_bytes: int = _LIMIT_BYTES) -> str | None:
    """The text of a file; None if the file is missing.

    :raises BadRequest: it is over the limit or not UTF-8.
    :raises OSError: it cannot be read.
    """
    data = read_bytes(files, name, limit_bytes)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        raise BadRequest(f'"{name}" is not UTF-8') from None


def read_bytes(files: Files, name: str, limit_bytes: int = _LIMIT_BYTES) -> bytes | None:
    """As :func:`read_text`, undecoded."""
    if name not in files:
        return None
    with files[name].open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BadRequest(f'"{name}" is larger than {limit_bytes} bytes')
    return data


def read_object(files: Files, name: str) -> JsonObject | None:
    """A JSON object; None if the file is missing. :raises BadRequest: it is not a JSON object."""
    value = read_json(files, name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRequest(f'"{name}" is not a JSON object')
    return JsonObject(name, value)


def read_json(files: Files, name: str) -> Any:
    """Any JSON value; None if the file is missing."""
    data = read_bytes(files, name, _TOKENIZER_LIMIT_BYTES if name == _TOKENIZER else _LIMIT_BYTES)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise BadRequest(f'"{name}" is not valid JSON') from None


class JsonObject:
    """A JSON object with typed access to its values; ``null`` counts as absent.

    ``where``: the file and place, for errors. Every method raises BadRequest if the value has
    another type, or is absent and has no default.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self.values = {name: value for name, value in values.items() if value is not None}
        self._nulls = {name for name, value in values.items() if value is None}

    def is_null(self, name: str) -> bool:
        """Whether the value is ``null``, which disables some options."""
        return name in self._nulls

    def over(self, defaults: Mapping[str, Any]) -> JsonObject:
        """A copy with ``defaults`` for absent values and ``null``."""
        copy = JsonObject(self.where, {**defaults, **self.values})
        copy._nulls |= self._nulls
        return copy

    def count(self, name: str, default: int = _REQUIRED) -> int:
        """A positive integer."""
        return self._get(name, _is_count, "a positive number", default)

    def index(self, name: str) -> int | None:
        """An integer from 0 on, or None."""
        value: int | None = self._get(name, _is_index, "a number from 0 on", None)
        return value

    def number(self, name: str, default: float = _REQUIRED) -> float:
        """A finite number."""
        return float(self._get(name, _is_number, "a number", default))

    def numbers(self, name: str) -> list[float]:
        values: list[float] = self._get(name, _are_numbers, "a list of numbers", _REQUIRED)
        return list(map(float, values))

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        return self._get(name, _is_a(bool), "true or false", default)

    def text(self, name: str, default: str = _REQUIRED) -> str:
        return self._get(name, _is_a(str), "a text", default)

    def items(self, name: str, default: list[Any] = _REQUIRED) -> list[Any]:
        return self._get(name, _is_a(list), "a list", default)

    def section(self, name: str) -> JsonObject | None:
        """A nested object, or None."""
        value: dict[str, Any] | None = self._get(name, _is_a(dict), "an object", None)
        return None if value is None else JsonObject(f"{self.where}: {name}", value)

    def nested(self, name: str) -> JsonObject:
        """As :meth:`section`; an empty object if it is absent."""
        return self.section(name) or JsonObject(f"{self.where}: {name}", {})

    def sections(self, name: str) -> list[JsonObject]:
        """A list of objects, empty if it is absent."""
        values = self.items(name, [])
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "a list of objects")
        return [JsonObject(f"{self.where}: {name}", value) for value in values]

    def unsupported(self, option: str, reason: str) -> BadRequest:
        """The error for an option that llama.cpp does not support; names file, place and option."""
        return BadRequest(f"{self.where}: {option} {reason}")

    def _get(self, name: str, is_valid: Callable[[Any], bool], kind: str, default: T) -> T:
        """``kind``: the valid values in words."""
        value: T = self.values.get(name, default)
        if value is _REQUIRED:
            raise BadRequest(f'{self.where} has no "{name}"')
        if value is not None and not is_valid(value):
            raise self._wrong(name, kind)
        return value

    def _wrong(self, name: str, kind: str) -> BadRequest:
        return BadRequest(f'{self.where}: "{name}" is not {kind}')


class JsonFiles(dict[str, JsonObject]):
    """JSON files by name; a missing file is an empty object."""

    def __missing__(self, name: str) -> JsonObject:
        return JsonObject(name, {})


def _is_a(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MAX_COUNT


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and abs(value) < 1e38


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))
