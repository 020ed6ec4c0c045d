"""Local files into the server's store, and models out of them, over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from ollama_async.cli.client import CHUNK_BYTES, Client, CommandFailed
from ollama_async.cli.progress import Progress


def upload(client: Client, path: Path, progress: Progress) -> str:
    """Make sure that the server has the file's bytes; their digest, ``sha256:<64 hex>``.

    What the server has already is not sent again.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            digest = _digest(file, size_bytes, path.name, progress)
            if not client.has_blob(digest):
                text = f"copying file {digest}"
                file.seek(0)
                client.send_blob(
                    digest, file, size_bytes, lambda sent: progress.share(text, sent, size_bytes)
                )
    except OSError as reason:
        raise CommandFailed(f"{path}: {reason.strerror or reason}") from reason
    return digest


def _digest(file: BinaryIO, size_bytes: int, name: str, progress: Progress) -> str:
    sum_ = hashlib.sha256()
    done = 0
    text = f"hashing {name}"
    while chunk := file.read(CHUNK_BYTES):
        sum_.update(chunk)
        done += len(chunk)
        progress.share(text, done, max(size_bytes, done))
    return f"sha256:{sum_.hexdigest()}"


def create(
    client: Client, request: dict[str, Any], progress: Progress, *, names_files: bool = False
) -> None:
    """POST /api/create, showing what the server says on the way.

    :raises CommandFailed: the answer ended without ``success``.
    """
    lines = client.lines("/api/create", request, names_files=names_files)
    with contextlib.closing(lines) as updates:
        progress.follow(updates, "the server ended before the model was complete")


def model_of_file(client: Client, path: Path, progress: Progress) -> str:
    """The name of a model made of one GGUF file; the same bytes have the same name."""
    try:
        digest = upload(client, path, progress)
        name = f"file-{digest.removeprefix('sha256:')[:12]}"
        create(client, {"model": name, "files": {path.name: digest}}, progress)
    finally:
        progress.end()
    return name
