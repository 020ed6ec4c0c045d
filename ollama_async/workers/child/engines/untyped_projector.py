"""Old projector files without a type, as Ollama's library has them for LLaVA, BakLLaVA and MiniCPM.

The library had a default for them once; now it refuses them. The type follows from the names of the
tensors. It is added to a copy in memory, which exists while the projector is loaded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import read_header

_KEY = "clip.projector_type"
_TYPES = {"mm.2.weight": "mlp", "resampler.query": "resampler"}
"""By a tensor that only files of this type have."""

_FILLER = "clip.filler"
_COUNT_OFFSET, _METADATA_OFFSET = 16, 24  # of the header's number of keys, and of the first one
_TEXT = 8  # type of a value
_ALIGNMENT = 32


@contextmanager
def typed_projector(path: str) -> Iterator[str]:
    """The path of a file with a type: ``path`` itself, or a copy for as long as this lasts.

    :raises BadRequest: the file is not GGUF, or broken.
    """
    header = read_header(Path(path))
    names = {tensor.name for tensor in header.tensors}
    kind = next((kind for name, kind in _TYPES.items() if name in names), "")
    is_typed = any(
        key.startswith("clip.") and key.endswith("projector_type") for key in header.metadata
    )
    if is_typed or not kind or header.metadata.get("clip.has_vision_encoder") is not True:
        yield path
        return
    alignment = header.metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int):
        raise BadRequest("the projector's alignment is not a number")
    copy = os.memfd_create("projector", os.MFD_CLOEXEC)
    try:
        _write_copy(path, copy, _metadata(kind, alignment))
        yield f"/proc/self/fd/{copy}"
    finally:
        os.close(copy)


def _metadata(kind: str, alignment: int) -> bytes:
    """Two keys. The second one only keeps the tensors aligned."""
    added = _entry(_KEY, kind)
    empty = len(added) + len(_entry(_FILLER, ""))
    return added + _entry(_FILLER, " " * (-empty % alignment))


def _entry(key: str, value: str) -> bytes:
    name, text = key.encode(), value.encode()
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", _TEXT)
    return head + struct.pack("<Q", len(text)) + text


def _write_copy(path: str, copy: int, added: bytes) -> None:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = bytearray(os.pread(source, _METADATA_OFFSET, 0))
        (count,) = struct.unpack_from("<Q", head, _COUNT_OFFSET)
        struct.pack_into("<Q", head, _COUNT_OFFSET, count + 2)
        os.write(copy, head + added)
        at, end = _METADATA_OFFSET, os.fstat(source).st_size
        while at < end:
            at += os.sendfile(copy, source, at, end - at)
    finally:
        os.close(source)
