"""A published model, safetensors and JSON files, made into one blob that an engine loads."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from ollama_async.convert.model import convert_model
from ollama_async.convert.network import Kind
from ollama_async.create.converting import told
from ollama_async.create.levels import SOURCES
from ollama_async.create.quantize import hashed
from ollama_async.gguf.reader import read_header
from ollama_async.store.files import NewFile
from ollama_async.store.layout import Shelf

Status = dict[str, Any]

NAME = "model.gguf"
"""What the result is called among the files that a model is made of."""


def is_part(name: str, names: Iterable[str]) -> bool:
    """Whether ``name`` is one of the files of a model to convert; GGUF files beside it are not."""
    is_published = any(each.endswith(".safetensors") for each in names)
    return is_published and not name.endswith(".gguf")


def converted(shelf: Shelf, files: Mapping[str, Path], level: str) -> Generator[Status, None, str]:
    """Convert the files, by their names in the published directory; the digest of the new blob.

    ``level``: as what the weights are wanted in the end; made at once if no quantizing is needed.
    Yields the status ``converting model`` with its progress.

    :raises BadRequest: the files are broken, or of a kind that is not converted.
    :raises StorageFailed: the new file does not fit onto the disk.
    :raises OSError: a file cannot be read, or the new one not written.
    """
    kind = cast("Kind", level) if level in SOURCES else None
    with NewFile(shelf.blobs.folder) as file:
        yield from told(shelf, "converting model", convert_model(files, file.path, kind))
        read_header(file.path)  # what we write must be something that we read
        digest = yield from hashed(file)
        shelf.blobs.adopt(file, digest)
    return digest
