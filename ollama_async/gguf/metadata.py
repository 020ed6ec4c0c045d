"""The metadata of a GGUF file: typed access, long values, and the form in ``/api/show``."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api import ollama_models
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import (
    ARRAY_HEAD,
    SCALARS,
    STRING,
    Array,
    GgufHeader,
    LongText,
    Value,
    read_header,
)
from ollama_async.gguf.types import TENSOR_TYPES

MAX_COUNT = (1 << 62) - 1
"""A bound that JSON, msgpack and C all accept."""
LIMIT_BYTES = 32 << 20
"""For all long values together, in the file; the largest vocabularies have 15 MB."""
LIMIT_ELEMENTS = 2 << 20
"""For all arrays together. In memory, an element may take sixty times its size in the file."""

_LENGTH = struct.Struct("<Q")
_F32 = struct.Struct("<f")


class TypedMetadata:
    """Typed access to metadata: missing or invalid values are "", 0 or False.

    Keys omit the prefix ``<arch>.``, except for :meth:`text`.
    """

    def __init__(self, header: GgufHeader) -> None:
        self._metadata = header.metadata
        self.architecture = self.text("general.architecture")
        parts = header.metadata.get("split.count")
        self.is_split = isinstance(parts, int) and parts > 1

    def text(self, key: str) -> str:
        value = self._metadata.get(key)
        return value if isinstance(value, str) else ""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def is_true(self, key: str) -> bool:
        return self._metadata.get(f"{self.architecture}.{key}") is True

    def count(self, key: str) -> int:
        """A number from 0 on; the largest of an array (one value per layer)."""
        return max(self.counts(key), default=0)

    def counts(self, key: str) -> list[int]:
        """One number, or one per layer."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        values = value.values if isinstance(value, Array) else (value,)
        return [
            min(max(number, 0), MAX_COUNT)
            for number in values
            if isinstance(number, int) and not isinstance(number, bool)
        ]


def read_long_values(path: Path, header: GgufHeader) -> dict[str, Any]:
    """Arrays and long texts by key, in file order, except those over a limit.

    ``header``: of this file. Blocks: 0.1 s for a vocabulary of 150 000, at most half a second.

    :raises BadRequest: the file has changed since the header was read.
    :raises OSError: the file cannot be read.
    """
    values: dict[str, Any] = {}
    bytes_left, elements_left = LIMIT_BYTES, LIMIT_ELEMENTS
    with path.open("rb") as file:
        for key, (start, end) in header.spans.items():
            known = header.metadata[key]
            length = known.length if isinstance(known, Array) else 1
            if end - start > bytes_left or length > elements_left:
                continue
            bytes_left -= end - start
            elements_left -= length
            file.seek(start)
            data = file.read(end - start)
            try:
                is_array = isinstance(known, Array)
                values[key] = _array(data, length) if is_array else _texts(data, 0, 1)[0]
            except (struct.error, KeyError):
                raise BadRequest("the GGUF file changed while it was read") from None
    return values


def _array(data: bytes, length: int) -> list[Any]:
    kind, _ = ARRAY_HEAD.unpack_from(data)
    if kind == STRING:
        return _texts(data, ARRAY_HEAD.size, length)
    scalar = SCALARS[kind]
    packed = data[ARRAY_HEAD.size : ARRAY_HEAD.size + length * scalar.size]
    return [value for (value,) in scalar.iter_unpack(packed)]


def _texts(data: bytes, at: int, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        texts.append(data[at : at + size].decode(errors="replace"))
        at += size
    return texts


class GgufDescription(msgspec.Struct, frozen=True):
    """``metadata`` by key, sorted, with ``general.parameter_count`` added."""

    metadata: dict[str, Any]
    tensors: list[ollama_models.Tensor]


def describe(path: str, *, is_verbose: bool) -> GgufDescription:
    """Read a file's header; without ``is_verbose``, arrays and long texts are None.

    Blocks up to a second.

    :raises BadRequest: the file is not a valid GGUF.
    :raises OSError: it cannot be read.
    """
    header = read_header(Path(path))
    metadata = {key: _plain(value) for key, value in header.metadata.items()}
    if is_verbose:
        for key, value in read_long_values(Path(path), header).items():
            is_list = isinstance(value, list)
            metadata[key] = [_plain(each) for each in value] if is_list else value
    metadata["general.parameter_count"] = sum(tensor.elements for tensor in header.tensors)
    tensors = [
        ollama_models.Tensor(tensor.name, TENSOR_TYPES[tensor.type].name, list(tensor.shape))
        for tensor in header.tensors
    ]
    return GgufDescription(dict(sorted(metadata.items())), tensors)


def _plain(value: Value) -> Any:
    if isinstance(value, Array | LongText):
        return None
    return _shortest(value) if isinstance(value, float) else value


def _shortest(value: float) -> float:
    """The shortest decimal that rounds to a 32-bit float: 1e-05 for 0.00000999999975…"""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if _F32.unpack(_F32.pack(short))[0] == value:
                return short
        except OverflowError:  # only a 64-bit number is so large
            return value
    return value
