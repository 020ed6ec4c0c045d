"""Makes blobs of files: converts safetensors and PEFT adapters to GGUF, copies local files.

Each function is a generator of statuses that returns the digest of the new blob.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.convert import lora
from ollama_async.convert.gguf_writer import FloatType
from ollama_async.convert.model import convert_model
from ollama_async.convert.projector import convert_projector, has_projector
from ollama_async.core.errors import BadRequest
from ollama_async.create.quantize import SOURCE_LEVELS, STEP_S, hash_file
from ollama_async.gguf.compatibility import check_adapter
from ollama_async.gguf.reader import GgufHeader, read_header
from ollama_async.store.files import NewFile
from ollama_async.store.layout import StoreLayout

MODEL_NAME, ADAPTER_NAME, PROJECTOR_NAME = "model.gguf", "adapter.gguf", "mmproj.gguf"
"""Names of the results among the files that a model is created from."""
_READ_BYTES = 1 << 20

NewBlob = Generator[ProgressStatus, None, str]
_Progress = Iterator[tuple[int, int]]


def store_model(layout: StoreLayout, files: Mapping[str, Path], level: str) -> NewBlob:
    """Convert a model of safetensors. ``files``: paths by name in the published directory.

    ``level``: the requested quantization; a float type is written at once. Yields the status
    ``converting model`` with its progress.

    :raises BadRequest: the files are broken or not supported.
    :raises StorageFailed: the new file does not fit onto the disk.
    :raises OSError: a file cannot be read or written.
    """
    kind = cast("FloatType", level) if level in SOURCE_LEVELS else None
    return (
        yield from _store_converted(
            layout, "converting model", lambda out: convert_model(files, out, kind)
        )
    )


def store_projector(layout: StoreLayout, files: Mapping[str, Path]) -> NewBlob:
    """Convert the image encoder; as :func:`store_model`. The digest is "" if there is none.

    :raises BadRequest: the files are broken or not supported.
    """
    if not has_projector(files):
        return ""
    return (
        yield from _store_converted(
            layout, "converting projector", lambda out: convert_projector(files, out)
        )
    )


def store_adapter(layout: StoreLayout, files: Mapping[str, Path], base_digest: str) -> NewBlob:
    """Convert a PEFT adapter for the base; as :func:`store_model`.

    :raises BadRequest: the adapter is broken, not supported, or not for this base.
    """
    files = {posixpath.basename(name): path for name, path in files.items()}
    base = read_header(layout.blobs.path(base_digest))
    return (
        yield from _store_converted(
            layout,
            "converting adapter",
            lambda out: lora.convert_adapter(files, _base_model(base), out),
            lambda adapter: check_adapter(adapter, base),
        )
    )


def _store_converted(
    layout: StoreLayout,
    text: str,
    convert: Callable[[Path], _Progress],
    check: Callable[[GgufHeader], None] = lambda _: None,
) -> NewBlob:
    with NewFile(layout.blobs.folder) as file:
        yield from _statuses(layout, text, convert(file.path))
        check(read_header(file.path))  # our own output must be readable
        digest = yield from hash_file(file)
        layout.blobs.put_file(file, digest)
    return digest


def _statuses(layout: StoreLayout, text: str, progress: _Progress) -> Iterator[ProgressStatus]:
    """``progress``: the bytes written so far and in all. :raises StorageFailed:"""
    status: ProgressStatus = {"status": text}
    yield status
    is_first, pause_at = True, time.monotonic() + STEP_S
    for done, total in progress:
        if is_first:
            layout.ensure_space(total - done)
            is_first = False
        if time.monotonic() > pause_at:
            yield {**status, "completed": done, "total": total}
            pause_at = time.monotonic() + STEP_S


def _base_model(base: GgufHeader) -> lora.BaseModel:
    """Numbers that are missing or differ between layers are 0."""
    architecture = base.metadata.get("general.architecture")

    def number(key: str) -> int:
        value = base.metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else 0

    width, heads = number("embedding_length"), number("attention.head_count")
    head = number("attention.key_length") or (width // heads if heads > 0 else 0)
    return lora.BaseModel(architecture=str(architecture), layers=number("block_count"), head=head)


def store_local_file(layout: StoreLayout, name: str, path: Path) -> NewBlob:
    """Copy a file into the store; statuses call it ``name``.

    :raises BadRequest: it cannot be read.
    :raises StorageFailed: it does not fit onto the disk.
    :raises OSError: the store is not writable.
    """
    sha256 = hashlib.sha256()
    with _open_local(path) as file, NewFile(layout.blobs.folder) as copy:
        total, done = os.fstat(file.fileno()).st_size, 0
        layout.ensure_space(total)
        pause_at = 0.0
        while data := file.read(_READ_BYTES):
            sha256.update(data)
            copy.write(data)
            done += len(data)
            if time.monotonic() > pause_at:
                yield {"status": f"copying file {name}", "total": total, "completed": done}
                pause_at = time.monotonic() + STEP_S
        digest = f"sha256:{sha256.hexdigest()}"
        layout.blobs.put_file(copy, digest)
    return digest


def _open_local(path: Path) -> BinaryIO:
    """:raises BadRequest: it is not a readable file."""
    if not path.is_file():  # opening a pipe would wait for its writer
        raise BadRequest(f"{path}: no such file")
    try:
        return path.open("rb")
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
