"""What a GGUF file says of itself, as ``/api/show`` tells it: ``model_info`` and ``tensors``."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api.ollama import Tensor
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import Array, GgufHeader, LongText, Value, read_header
from ollama_async.gguf.types import TENSOR_TYPES
from ollama_async.gguf.values import read_long_values
from ollama_async.store.remembered import Remembered, signature_of

_LIMIT_BYTES = 32 << 20
_TENSOR_BYTES = 400
_VALUE_BYTES = 200
_F32 = struct.Struct("<f")


class Info(msgspec.Struct, frozen=True):
    """``metadata`` by key, sorted, ``general.parameter_count`` added."""

    metadata: dict[str, Any]
    tensors: list[Tensor]


class InfoCache:
    """Infos without long values: they are asked for before every ``run``. Thread-safe."""

    def __init__(self) -> None:
        self._infos: Remembered[Info | str] = Remembered(_LIMIT_BYTES)

    def info(self, path: str) -> Info:
        """As :func:`read_info`; arrays and long texts are None. A fault is remembered, too."""
        signature = signature_of(path)
        known = self._infos.get(path, signature)
        if known is None:
            try:
                known = read_info(path, is_verbose=False)
            except BadRequest as error:
                known = error.message
            size_bytes = _VALUE_BYTES if isinstance(known, str) else _memory_bytes(known)
            self._infos.put(path, signature, known, size_bytes)
        if isinstance(known, str):
            raise BadRequest(known)
        return known


def _memory_bytes(info: Info) -> int:
    texts = (text for text in info.metadata.values() if isinstance(text, str))
    parts = _TENSOR_BYTES * len(info.tensors) + _VALUE_BYTES * len(info.metadata)
    return parts + sum(map(sys.getsizeof, texts))


def read_info(path: str, *, is_verbose: bool) -> Info:
    """Read a file's header, with ``is_verbose`` the vocabulary, too; blocks up to a second.

    :raises BadRequest: it is no sound GGUF.
    :raises OSError: it cannot be read.
    """
    header = read_header(Path(path))
    metadata = {key: _plain(value) for key, value in header.metadata.items()}
    if is_verbose:
        for key, value in read_long_values(Path(path), header).items():
            is_list = isinstance(value, list)
            metadata[key] = [_plain(each) for each in value] if is_list else value
    metadata["general.parameter_count"] = sum(tensor.elements for tensor in header.tensors)
    return Info(dict(sorted(metadata.items())), _tensors(header))


def _plain(value: Value) -> Any:
    if isinstance(value, Array | LongText):
        return None
    return _shortest(value) if isinstance(value, float) else value


def _shortest(value: float) -> float:
    """The number as one would write it: 1e-05, which as a 32-bit number is 0.00000999999975…"""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if _F32.unpack(_F32.pack(short))[0] == value:
                return short
        except OverflowError:  # only a 64-bit number reaches so far
            return value
    return value


def _tensors(header: GgufHeader) -> list[Tensor]:
    return [
        Tensor(tensor.name, TENSOR_TYPES[tensor.type].name, list(tensor.shape))
        for tensor in header.tensors
    ]
