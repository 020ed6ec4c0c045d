"""What leaves the store for elsewhere: a manifest byte for byte, and the files that it names."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

from ollama_async.core.errors import StorageFailed
from ollama_async.core.model_names import ModelName
from ollama_async.store.blobs import Blobs
from ollama_async.store.files import read_bounded
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, Layer
from ollama_async.store.manifests import Manifests


class Departures:
    """Every method blocks. Nothing in the store is changed."""

    def __init__(self, root: Path) -> None:
        self._manifests = Manifests(root)
        self._blobs = Blobs(root)

    def spelled(self, name: ModelName) -> ModelName:
        """The name as the store has it: names are found without regard to case."""
        return self._manifests.spelled(name)

    def manifest(self, name: ModelName) -> bytes:
        """:raises StorageFailed: there is none, in Ollama's words; or it cannot be read.
        :raises BadRequest: it is larger than a manifest may be.
        """
        path = self._manifests.locate(name)
        if path is None:
            reason = os.strerror(errno.ENOENT).lower()
            raise StorageFailed(f"open {self._manifests.likely_path(name)}: {reason}")
        try:
            return read_bounded(Path(path), MANIFEST_LIMIT_BYTES)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO).lower()
            raise StorageFailed(f"open {path}: {reason}") from error

    def check(self, layers: list[Layer]) -> None:
        """:raises StorageFailed: the file of a layer is missing, or has another size."""
        for layer in layers:
            try:
                size = self._blobs.size(layer.digest)
            except OSError:
                raise StorageFailed(
                    f"the model is not complete: {layer.digest} is not in the store"
                ) from None
            if size != layer.size:
                raise StorageFailed(
                    f"the model is broken: {layer.digest} has {size} bytes,"
                    f" its manifest says {layer.size}"
                )

    def open(self, digest: str) -> FileIO:
        """The file; it stays what it is, whoever removes it meanwhile, until it is closed.

        :raises StorageFailed: it has been removed.
        """
        try:
            return FileIO(self._blobs.file(digest))
        except OSError:
            raise StorageFailed(
                f"the model was removed while it was pushed: {digest} is gone"
            ) from None
