"""Writes a GGUF file sequentially, with a bounded part of it in memory."""

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
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_ALIGNMENT = 32
_LARGEST_F16 = 65504.0


class OutputTensor(msgspec.Struct, frozen=True):
    """``shape`` in numpy's order; ``blocks`` reads the numbers, a bounded number of rows each."""

    name: str
    shape: tuple[int, ...]
    kind: FloatType
    blocks: Callable[[], Iterator[Floats]]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * _WIDTHS[self.kind]


def write(
    out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[OutputTensor]
) -> Iterator[tuple[int, int]]:
    """Overwrite ``out``; yields the bytes of tensors written and in all, after each block.

    :raises BadRequest: a number does not fit.
    :raises OSError: the disk is full, or a file cannot be read.
    """
    total = sum(tensor.size_bytes for tensor in tensors)
    _write_head(out, architecture, fields, tensors)
    done = 0
    with out.open("ab") as file:
        file.write(bytes(-file.tell() % _ALIGNMENT))
        for tensor in tensors:
            for block in tensor.blocks():
                data = _narrowed(block, tensor.kind, tensor.name)
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
                np.dtype(_DTYPES[tensor.kind]),
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


def _narrowed(block: Floats, kind: FloatType, name: str) -> bytes:
    if (
        kind == "F16"
        and np.max(np.abs(block), initial=0.0, where=np.isfinite(block)) > _LARGEST_F16
    ):
        raise BadRequest(f"{name} has numbers that F16 cannot hold; use BF16 or F32")
    if kind == "BF16":
        return bytes(quantize(block, GGMLQuantizationType.BF16))
    return block.astype(_DTYPES[kind], copy=False).tobytes()
