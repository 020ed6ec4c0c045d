"""Reads safetensors files as untrusted input.

::

    length u64, little endian | JSON object of that length | the tensors' data
    {"name": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}, …, "__metadata__": {…}}

Offsets count from the end of the JSON. Every number is checked against the file before use, so the
limits below bound memory and time. The file is not mapped: truncating a mapped file kills its
readers.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.convert.config_files import Files, read_object
from ollama_async.core.errors import BadRequest

Floats = NDArray[np.float32]

# Limits on what a header may claim. Real files: < 1 MiB, < 10 000 tensors, < 5 dimensions.
_MAX_HEADER_BYTES = 16 << 20
_MAX_TENSORS = 1 << 16
_MAX_DIMENSIONS = 8
_MAX_NAME_CHARS = 512

_WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of one element. Unknown types are an error only when read."""

_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_METADATA = "__metadata__"


class TensorEntry(msgspec.Struct, frozen=True):
    """``dtype`` as the file spells it; ``offset``: bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Safetensors(AbstractContextManager["Safetensors"]):
    """An open file, and a context manager. All methods block on the disk."""

    def __init__(self, path: Path, name: str) -> None:
        """``name``: the file's name in errors.

        :raises BadRequest: it is not a safetensors file, broken, or over a limit.
        :raises OSError: it cannot be read.
        """
        self.name = name
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.tensors = self._read_header()
        except BaseException:
            self.close()
            raise

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Rows ``start`` to ``stop`` of a tensor's first dimension, as 32-bit floats.

        :raises BadRequest: the type of the numbers is not supported, or the file shrank.
        :raises KeyError: the tensor does not exist.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _NUMPY and tensor.dtype != "BF16":
            raise self._invalid(
                f"tensor {name!r} has the type {tensor.dtype}; "
                "only F64, F32, F16 and BF16 can be converted"
            )
        rows = tensor.shape[0] if tensor.shape else 1
        stop = rows if stop is None else stop
        assert 0 <= start <= stop <= rows, "rows out of range"
        row_bytes = tensor.size_bytes // max(rows, 1)
        data = self._pread(tensor.offset + start * row_bytes, (stop - start) * row_bytes)
        shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
        return _widened(data, tensor.dtype).reshape(shape)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_header(self) -> dict[str, TensorEntry]:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size < 8:
            raise self._invalid("it is too short")
        length = int.from_bytes(self._pread(0, 8), "little")
        if length > min(_MAX_HEADER_BYTES, status.st_size - 8):
            raise self._invalid("its header is too long or goes past the end of the file")
        header = self._decode(self._pread(8, length), dict[str, msgspec.Raw])
        if _METADATA in header:
            self._decode(header.pop(_METADATA), dict[str, str])
        if len(header) > _MAX_TENSORS:
            raise self._invalid(f"{len(header)} tensors, at most {_MAX_TENSORS} are allowed")
        tensors = {
            name: self._checked(name, self._decode(raw, _Entry), 8 + length, status.st_size)
            for name, raw in header.items()
        }
        self._check_overlaps(tensors)
        return tensors

    def _decode(self, data: bytearray | msgspec.Raw, kind: Any) -> Any:
        try:
            return msgspec.json.decode(data, type=kind)
        except (ValueError, RecursionError):
            raise self._invalid("its header is invalid") from None

    def _checked(self, name: str, entry: _Entry, base: int, file_bytes: int) -> TensorEntry:
        begin, end = entry.data_offsets
        what = f"tensor {name[:80]!r}"
        if len(name) > _MAX_NAME_CHARS:
            raise self._invalid(f"the name of {what} is too long")
        if not 0 <= begin <= end <= file_bytes - base:
            raise self._invalid(f"{what} goes past the end of the file (truncated?)")
        if len(entry.shape) > _MAX_DIMENSIONS or any(extent < 0 for extent in entry.shape):
            raise self._invalid(f"{what} has an impossible shape")
        width = _WIDTHS.get(entry.dtype)
        if width is not None and math.prod(entry.shape) * width != end - begin:
            raise self._invalid(f"the size of {what} does not match its shape")
        return TensorEntry(entry.dtype, tuple(entry.shape), base + begin, end - begin)

    def _check_overlaps(self, tensors: dict[str, TensorEntry]) -> None:
        end = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
            if tensor.size_bytes and tensor.offset < end:
                raise self._invalid(f"tensor {name!r} overlaps another one")
            end = max(end, tensor.offset + tensor.size_bytes)

    def _pread(self, offset: int, length: int) -> bytearray:
        """Exactly ``length`` bytes, in reads of at most 2 GiB."""
        data = bytearray(length)
        view = memoryview(data)
        done = 0
        while done < length:
            count = os.preadv(self._descriptor, [view[done:]], offset + done)
            if not count:
                raise self._invalid("it ends too early")
            done += count
        return data

    def _invalid(self, reason: str) -> BadRequest:
        return BadRequest(f'invalid safetensors file "{self.name}": {reason}')


def _widened(data: bytearray, dtype: str) -> Floats:
    """Numbers of a type in ``_NUMPY``, or BF16: the upper half of a 32-bit float."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _NUMPY[dtype]).astype(np.float32, copy=False)


# ----------------------------------------------------------------- all files of a directory


INDEX = "model.safetensors.index.json"
_MAX_SHARDS = 256  # each takes a file descriptor; the largest models known have 163


class Weights(ExitStack):
    """All tensors of a directory by name. A context manager. All methods block on the disk."""

    def __init__(self, files: Files) -> None:
        """
        :raises BadRequest: a file is broken, or the index does not fit the files.
        :raises OSError: a file cannot be read.
        """
        super().__init__()
        self._file_of: dict[str, Safetensors] = {}
        try:
            index = _index(files)
            if index is None:
                self._add_all(files, _unlisted(files))
            else:
                self._add_listed(files, index)
        except BaseException:
            self.close()
            raise
        self.tensors: dict[str, TensorEntry] = {
            name: file.tensors[name] for name, file in self._file_of.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """As :meth:`Safetensors.read`."""
        return self._file_of[name].read(name, start, stop)

    def _add_all(self, files: Files, names: list[str]) -> None:
        for file in self._opened(files, names):
            for name in file.tensors:
                if name in self._file_of:
                    raise BadRequest(f"tensor {name[:80]!r} is in two files")
                self._file_of[name] = file

    def _add_listed(self, files: Files, index: dict[str, str]) -> None:
        opened = {file.name: file for file in self._opened(files, sorted(set(index.values())))}
        for name, file in index.items():
            if name not in opened[file].tensors:
                raise BadRequest(f'tensor {name[:80]!r} is not in "{file}", as {INDEX} claims')
            self._file_of[name] = opened[file]

    def _opened(self, files: Files, names: list[str]) -> Iterable[Safetensors]:
        if len(names) > _MAX_SHARDS:
            raise BadRequest(f"{len(names)} safetensors files, at most {_MAX_SHARDS} are allowed")
        for name in names:
            yield self.enter_context(Safetensors(files[name], name))


def _index(files: Files) -> dict[str, str] | None:
    """The file of each tensor; None without an index."""
    document = read_object(files, INDEX)
    if document is None:
        return None
    listed: dict[str, Any] = document.nested("weight_map").values
    for name in listed.values():
        # This also rejects paths out of the directory.
        if not isinstance(name, str) or name not in files:
            raise BadRequest(f"{INDEX} names a missing file: {str(name)[:200]!r}")
    return listed


def _unlisted(files: Files) -> list[str]:
    """The files of a model without an index."""
    found = sorted(name for name in files if name.endswith(".safetensors") and "/" not in name)
    # Mistral publishes the same weights twice, the second time in its own format.
    return [name for name in found if name.startswith("model")] or found
