"""Files of this machine as blobs, for who may name them (see :mod:`.old_form`)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ollama_async.core.errors import BadRequest
from ollama_async.store.files import NewFile
from ollama_async.store.layout import Shelf

Status = dict[str, Any]

STEP_S = 0.2
"""Between two statuses, and about how long a step blocks."""
_READ_BYTES = 1 << 20


def copied(shelf: Shelf, name: str, path: Path) -> Generator[Status, None, str]:
    """Copy the file into the store, called ``name`` in the statuses; returns its digest.

    :raises BadRequest: it cannot be read.
    :raises StorageFailed: it does not fit onto the disk.
    :raises OSError: the store cannot take it.
    """
    sha256 = hashlib.sha256()
    with _opened(path) as file, NewFile(shelf.blobs.folder) as copy:
        total, done = os.fstat(file.fileno()).st_size, 0
        shelf.make_room(total)
        pause_at = 0.0
        while data := file.read(_READ_BYTES):
            sha256.update(data)
            copy.write(data)
            done += len(data)
            if time.monotonic() > pause_at:
                yield {"status": f"copying file {name}", "total": total, "completed": done}
                pause_at = time.monotonic() + STEP_S
        digest = f"sha256:{sha256.hexdigest()}"
        shelf.blobs.adopt(copy, digest)
    return digest


def _opened(path: Path) -> Any:
    """:raises BadRequest: it is no file that can be read."""
    if not path.is_file():  # opening a pipe would wait for its writer
        raise BadRequest(f"{path}: no such file")
    try:
        return path.open("rb")
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
