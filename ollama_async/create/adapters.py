"""A LoRA adapter as PEFT publishes it, made into a blob that an engine applies to its base."""

from __future__ import annotations

import posixpath
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from ollama_async.convert import lora
from ollama_async.core.errors import BadRequest
from ollama_async.create.converting import told
from ollama_async.create.quantize import hashed
from ollama_async.gguf.adapter_fit import check_fit
from ollama_async.gguf.reader import GgufHeader, read_header
from ollama_async.store.files import NewFile
from ollama_async.store.layout import Shelf

Status = dict[str, Any]

NAME = "adapter.gguf"
"""What the result is called among the files that a model is made of."""


def is_published(names: Iterable[str]) -> bool:
    """Whether files of these names are an adapter to convert, as PEFT saves it.

    :raises BadRequest: they are meant to be, but one of the two that count is missing.
    """
    names = {posixpath.basename(name) for name in names}
    wanted = {lora.CONFIG_NAME, lora.WEIGHTS_NAME}
    if wanted <= names:
        return True
    if lora.CONFIG_NAME in names or any(name.endswith(".safetensors") for name in names):
        missing = " and ".join(sorted(wanted - names))
        raise BadRequest(f"an adapter that is not a GGUF file needs {missing}")
    return False


def converted(
    shelf: Shelf, files: Mapping[str, Path], base_digest: str
) -> Generator[Status, None, str]:
    """Convert the files, by their names, for the base; the digest of the new blob.

    Yields the status ``converting adapter`` with its progress.

    :raises BadRequest: the adapter is broken, or cannot be converted, or not for this base.
    :raises StorageFailed: the new file does not fit onto the disk.
    :raises OSError: a file cannot be read, or the new one not written.
    """
    files = {posixpath.basename(name): path for name, path in files.items()}
    base = read_header(shelf.blobs.path(base_digest))
    with NewFile(shelf.blobs.folder) as file:
        steps = lora.convert_adapter(files, _known_of(base), file.path)
        yield from told(shelf, "converting adapter", steps)
        check_fit(read_header(file.path), base)
        digest = yield from hashed(file)
        shelf.blobs.adopt(file, digest)
    return digest


def _known_of(base: GgufHeader) -> lora.Base:
    """Numbers that are missing, or differ between layers, are 0."""
    architecture = base.metadata.get("general.architecture")

    def number(key: str) -> int:
        value = base.metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else 0

    width, heads = number("embedding_length"), number("attention.head_count")
    head = number("attention.key_length") or (width // heads if heads > 0 else 0)
    return lora.Base(architecture=str(architecture), layers=number("block_count"), head=head)
