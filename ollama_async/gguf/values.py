"""The long values of a GGUF header, vocabularies above all, which its reader passes over."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import ARRAY_HEAD, SCALARS, STRING, Array, GgufHeader

LIMIT_BYTES = 32 << 20
"""Of all values together, as they lie in the file; the largest vocabularies have 15 MB."""
LIMIT_ELEMENTS = 2 << 20
"""Of all arrays together; an element may cost sixty times its size in the file."""

_LENGTH = struct.Struct("<Q")


def read_long_values(path: Path, header: GgufHeader) -> dict[str, Any]:
    """Arrays and long texts by key, in the order of the file; what is over a limit is left out.

    ``header`` is that of ``path``. Blocks: 0.1 s for a vocabulary of 150 000, half a second at
    worst.

    :raises BadRequest: the file is not the one of the header any more.
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
    layout = SCALARS[kind]
    packed = data[ARRAY_HEAD.size : ARRAY_HEAD.size + length * layout.size]
    return [value for (value,) in layout.iter_unpack(packed)]


def _texts(data: bytes, at: int, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        texts.append(data[at : at + size].decode(errors="replace"))
        at += size
    return texts
