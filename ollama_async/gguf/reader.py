"""Reads the header of a GGUF file as untrusted input.

::

    "GGUF" | version u32 | tensors u64 | pairs u64
    pair:    key string | type u32 | value
    array:   element type u32 | length u64 | elements
    tensor:  name string | dimensions u32 | u64 … | type u32 | offset u64
    padding up to the alignment, then the tensors' data
    string:  length u64 | bytes                      everything is little endian

Every count and length is checked against the remaining bytes before use, so the limits below bound
memory and time. Long texts and arrays are skipped, except short arrays of numbers. The format is
specified in ggml's ``docs/gguf.md``. The rules on names, dimensions and duplicates are llama.cpp's,
which must never load a file that breaks them.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.types import TENSOR_TYPES

MAGIC = b"GGUF"
NOT_GGUF = "supplied file was not in GGUF format"

# Limits on what a header may claim. Real files: < 200 pairs, < 10 000 tensors, < 1 MiB of text,
# < 1 million strings. Without them a few bytes could cost gigabytes or minutes.
_MAX_PAIRS = 4096
_MAX_TENSORS = 1 << 16
_MAX_KEY_BYTES = 65535
_MAX_TEXT_BYTES = 16 << 20
_MAX_KEPT_TEXT_BYTES = 256 << 10  # ten times the longest chat template known
_MAX_ARRAY_STRINGS = 1 << 22
_MAX_KEPT_ELEMENTS = 512  # llama.cpp's limit of layers: what is kept are values per layer
_MAX_TENSOR_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_MAX_SIZE = (1 << 63) - 1

_U64 = struct.Struct("<Q")
ARRAY_HEAD = struct.Struct("<IQ")
_TENSOR_TAIL = struct.Struct("<IQ")
STRING, _ARRAY = 8, 9
SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_UINT32 = 4
_WINDOW_BYTES = 128 << 10


class Array(msgspec.Struct, frozen=True):
    """An array in the metadata; ``values`` is empty for strings and for long arrays."""

    length: int
    values: tuple[int | float | bool, ...] = ()


class LongText(msgspec.Struct, frozen=True):
    """A text in the file that is too long for memory."""

    size: int


Value = int | float | bool | str | Array | LongText


class TensorInfo(msgspec.Struct, frozen=True):
    """``shape`` has the fastest dimension first; ``offset`` counts from ``data_offset``."""

    name: str
    type: int
    shape: tuple[int, ...]
    elements: int
    offset: int
    size: int


class GgufHeader(msgspec.Struct, frozen=True):
    """A valid header, whose tensors lie in the file, aligned, without overlaps.

    ``data_offset`` counts from the start of the file. ``spans``: (from, to) of a key's value in the
    file, for arrays and long texts.
    """

    data_offset: int
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    spans: dict[str, tuple[int, int]] = {}


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file, version 2 or 3.

    Blocks on the disk: 15-60 ms for a vocabulary of 150 000 entries and as many merges, at most
    about a second for a malicious file.

    :raises BadRequest: the file is not GGUF, broken, or over a limit.
    :raises OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(NOT_GGUF)
        return _read(_Cursor(descriptor, status.st_size))
    finally:
        os.close(descriptor)


def _invalid(reason: str) -> BadRequest:
    return BadRequest(f"invalid GGUF file: {reason}")


class _Cursor:
    """A position in the file, and a buffer of the following bytes.

    The file is not mapped: truncating a mapped file kills its readers.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._window = b""
        self._base = 0
        self._at = 0
        self._text_budget = _MAX_TEXT_BYTES
        self._string_budget = _MAX_ARRAY_STRINGS

    @property
    def position(self) -> int:
        return self._base + self._at

    @property
    def left(self) -> int:
        return self.size - self._base - self._at

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes; the caller has bounded ``count``."""
        if count > len(self._window) - self._at:
            self._refill(count, what)
        start = self._at
        self._at = start + count
        return self._window[start : self._at]

    def skip(self, count: int, what: str) -> None:
        if count > self.left:
            raise _invalid(f"{what} goes past the end of the file")
        self._at += count
        if self._at > len(self._window):
            self._base += self._at
            self._window, self._at = b"", 0

    def take_u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def take_u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def take_name(self, limit_bytes: int, what: str) -> bytes:
        """A string of at most ``limit_bytes``; counts towards the limit for all kept text."""
        length = self.take_u64(what)
        if length > limit_bytes:
            raise _invalid(f"{what} is too long or goes past the end of the file")
        self._charge(length)
        return self.take(length, what)

    def take_text(self, what: str) -> str | LongText:
        """A string; a short one is kept and counts towards the same limit."""
        length = self.take_u64(what)
        if length > _MAX_KEPT_TEXT_BYTES:
            self.skip(length, what)
            return LongText(length)
        self._charge(length)
        return self.take(length, what).decode(errors="replace")

    def _charge(self, length: int) -> None:
        self._text_budget -= length
        if self._text_budget < 0:
            raise _invalid("too much text in the metadata")

    def skip_strings(self, count: int, what: str) -> None:
        """Skip ``count`` strings. The hot loop: one step per vocabulary entry."""
        if count > self.left // 8:
            raise _invalid(f"{what} has more strings than the file can hold")
        self._string_budget -= count
        if self._string_budget < 0:
            raise _invalid("too many strings")
        unpack_from = _U64.unpack_from
        while count:
            if len(self._window) - self._at < 8:
                self._refill(8, what)
            window, at = self._window, self._at
            last = len(window) - 8
            while count and at <= last:
                at += 8 + unpack_from(window, at)[0]
                count -= 1
            self.skip(at - self._at, what)

    def _refill(self, count: int, what: str) -> None:
        """Move the window to the position, with at least ``count`` bytes."""
        if count > self.left:
            raise _invalid(f"{what} goes past the end of the file")
        self._base, self._at = self.position, 0
        length = min(max(count, _WINDOW_BYTES), self.size - self._base)
        self._window = os.pread(self._descriptor, length, self._base)
        if len(self._window) < count:  # the file has shrunk meanwhile
            raise _invalid(f"{what} goes past the end of the file")


def _read(cursor: _Cursor) -> GgufHeader:
    if cursor.size < len(MAGIC) or cursor.take(4, "the magic") != MAGIC:
        raise BadRequest(NOT_GGUF)
    _check_version(cursor)
    tensor_count = cursor.take_u64("the tensor count")
    pair_count = cursor.take_u64("the metadata count")
    if pair_count > _MAX_PAIRS:
        raise _invalid(f"{pair_count} metadata pairs, at most {_MAX_PAIRS} are allowed")
    if tensor_count > _MAX_TENSORS:
        raise _invalid(f"{tensor_count} tensors, at most {_MAX_TENSORS} are allowed")
    metadata, spans = _read_metadata(cursor, pair_count)
    alignment = _alignment(metadata)
    tensors = _read_tensors(cursor, tensor_count)
    data_offset = -(-cursor.position // alignment) * alignment
    _check_layout(tensors, alignment, cursor.size - data_offset)
    return GgufHeader(data_offset, metadata, tensors, spans)


def _check_version(cursor: _Cursor) -> None:
    version = cursor.take_u32("the version")
    if version and not version & 0xFFFF:
        raise _invalid("big-endian files are not supported")
    if version not in {2, 3}:
        raise _invalid(f"version {version} is not supported, only 2 and 3 are")


def _read_metadata(
    cursor: _Cursor, count: int
) -> tuple[dict[str, Value], dict[str, tuple[int, int]]]:
    metadata: dict[str, Value] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        raw = cursor.take_name(_MAX_KEY_BYTES, "a metadata key")
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            raise _invalid("a metadata key is not UTF-8") from None
        if key in metadata:
            raise _invalid(f"duplicate metadata key {key[:80]!r}")
        kind = cursor.take_u32("a metadata type")
        if key == "general.alignment" and kind != _UINT32:
            raise _invalid("general.alignment is not an unsigned 32-bit number")
        start = cursor.position
        value = metadata[key] = _read_value(cursor, kind, f"the value of {key[:80]!r}")
        if isinstance(value, Array | LongText):
            spans[key] = (start, cursor.position)
    return metadata, spans


def _read_value(cursor: _Cursor, kind: int, what: str) -> Value:
    if kind == STRING:
        return cursor.take_text(what)
    if kind == _ARRAY:
        return _read_array(cursor, what)
    layout = SCALARS.get(kind)
    if layout is None:
        raise _invalid(f"{what} has the unknown type {kind}")
    scalar: Value = layout.unpack(cursor.take(layout.size, what))[0]
    return scalar


def _read_array(cursor: _Cursor, what: str) -> Array:
    kind, length = ARRAY_HEAD.unpack(cursor.take(ARRAY_HEAD.size, what))
    if kind == _ARRAY:
        raise _invalid(f"{what} is an array of arrays, which no engine reads")
    if kind == STRING:
        cursor.skip_strings(length, what)
        return Array(length)
    layout = SCALARS.get(kind)
    if layout is None:
        raise _invalid(f"{what} has elements of the unknown type {kind}")
    if length > _MAX_KEPT_ELEMENTS:
        cursor.skip(length * layout.size, what)
        return Array(length)
    data = cursor.take(length * layout.size, what)
    return Array(length, tuple(value for (value,) in layout.iter_unpack(data)))


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)
    if alignment < 1 or alignment & (alignment - 1):
        raise _invalid(f"alignment {alignment} is not a power of two")
    return alignment


def _read_tensors(cursor: _Cursor, count: int) -> tuple[TensorInfo, ...]:
    tensors: dict[bytes, TensorInfo] = {}
    for _ in range(count):
        raw_name = cursor.take_name(_MAX_TENSOR_NAME_BYTES, "a tensor name")
        if raw_name in tensors:
            raise _invalid(f"duplicate tensor {raw_name.decode(errors='replace')!r}")
        tensors[raw_name] = _read_tensor(cursor, raw_name.decode(errors="replace"))
    return tuple(tensors.values())


def _read_tensor(cursor: _Cursor, name: str) -> TensorInfo:
    what = f"tensor {name!r}"
    dimensions = cursor.take_u32(what)
    if dimensions > _MAX_DIMENSIONS:
        raise _invalid(f"{what} has {dimensions} dimensions, at most {_MAX_DIMENSIONS} are allowed")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions, what))
    elements = 1
    for extent in shape:
        elements *= extent
    # Readers divide by dimensions, so none is zero; a huge one overflows 64 bits.
    if not 0 < elements <= _MAX_SIZE:
        raise _invalid(f"{what} has an impossible shape {list(shape)}")
    number, offset = _TENSOR_TAIL.unpack(cursor.take(_TENSOR_TAIL.size, what))
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise _invalid(f"{what} has the unknown type {number}")
    if (shape[0] if shape else 1) % kind.block_elements:
        raise _invalid(f"{what} has rows that are not whole blocks of {kind.name}")
    size = elements // kind.block_elements * kind.block_bytes
    return TensorInfo(name, number, shape, elements, offset, size)


def _check_layout(tensors: tuple[TensorInfo, ...], alignment: int, data_bytes: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise _invalid(f"tensor {tensor.name!r} is not aligned to {alignment} bytes")
        if tensor.offset < end:
            raise _invalid(f"tensor {tensor.name!r} overlaps another one")
        end = tensor.offset + tensor.size
        if end > data_bytes:
            raise _invalid(f"tensor {tensor.name!r} goes past the end of the file (truncated?)")
