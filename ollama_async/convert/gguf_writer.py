"""Writes a GGUF file sequentially, with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import quantize

from ollama_async.convert.safetensors import Floats
from ollama_async.core.errors import BadRequest

Fields = dict[str, Any]
"""Metadata by key."""
FloatType = Literal["F32", "F16", "BF16"]

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
}
_ALIGNMENT = 32
_LARGEST_F16 = 65504.0


class OutputTensor(msgspec.Struct, frozen=True):
    """``shape`` in numpy's order; ``blocks`` reads a bounded number of rows at a time."""

    name: str
    shape: tuple[int, ...]
    kind: FloatType
    blocks: Callable[[], Iterator[Floats]]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * _DTYPES[self.kind].itemsize


def write(
    out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[OutputTensor]
) -> Iterator[tuple[int, int]]:
    """Overwrite ``out``; yields the tensor bytes written so far and in all, after each block.

    :raises BadRequest: a number is too large for its type.
    :raises OSError: the disk is full, or a file cannot be read.
    """
    total = sum(tensor.size_bytes for tensor in tensors)
    _write_head(out, architecture, fields, tensors)
    done = 0
    with out.open("ab") as file:
        file.write(bytes(-file.tell() % _ALIGNMENT))
        for tensor in tensors:
            for block in tensor.blocks():
                data = _encode(block, tensor.kind, tensor.name)
                file.write(data)
                done += len(data)
                yield done, total
            file.write(bytes(-tensor.size_bytes % _ALIGNMENT))


def _write_head(
    out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[OutputTensor]
) -> None:
    writer = GGUFWriter(out, architecture)
    try:
        for key, value in fields.items():
            _add(writer, key, value)
        for tensor in tensors:
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                _DTYPES[tensor.kind],
                tensor.size_bytes,
                raw_dtype=GGMLQuantizationType[tensor.kind],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_key_value(key, value, GGUFValueType.STRING)
    else:
        writer.add_array(key, value)


def _encode(block: Floats, kind: FloatType, name: str) -> bytes:
    if kind == "F16":
        largest = np.max(np.abs(block), initial=0.0, where=np.isfinite(block))
        if largest > _LARGEST_F16:
            raise BadRequest(f"{name} has numbers that are too large for F16; use BF16 or F32")
    if kind == "BF16":
        return bytes(quantize(block, GGMLQuantizationType.BF16))
    return block.astype(_DTYPES[kind], copy=False).tobytes()
