"""Access to the store for pulls, which write models, and pushes, which read them.

Every method blocks.
"""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

from ollama_async.core.errors import NotFound, StorageFailed
from ollama_async.core.model_names import ModelName
from ollama_async.store import partial_files
from ollama_async.store.blobs import Blobs
from ollama_async.store.files import read_bounded, storage_errors
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import MANIFEST_LIMIT_BYTES, Layer, Manifest, Manifests
from ollama_async.store.model_reader import check_pulled
from ollama_async.store.partial_files import PartialFile

SPARE_BYTES = 64 << 20
"""Left free for other writers to the disk during a pull, which may take hours."""


class PullTarget:
    """Receives a model: blobs first, then the manifest that references them.

    Digests are as :func:`.blobs.parse_digest` returns them.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    def has(self, layer: Layer) -> bool:
        """Whether the store has the blob, with the right size. If so, pruning keeps it for now."""
        blobs = self._layout.blobs
        try:
            return blobs.touch(layer.digest) and blobs.size(layer.digest) == layer.size
        except OSError:
            return False

    def received_bytes(self, digest: str, total: int) -> int:
        """See :func:`.partial_files.received_bytes`."""
        return partial_files.received_bytes(self._layout.blobs, digest, total)

    def claim(self, layer: Layer, chunk_bytes: int) -> PartialFile | None:
        """See :meth:`.PartialFile.claim`. Then call :meth:`has`: the blob may be complete now."""
        return PartialFile.claim(self._layout.blobs, layer.digest, layer.size, chunk_bytes)

    def ensure_space(self, layers: list[Layer]) -> None:
        """:raises StorageFailed: the missing bytes of the layers do not fit onto the disk."""
        missing = [layer for layer in layers if not self.has(layer)]
        needed = sum(
            layer.size - self.received_bytes(layer.digest, layer.size) for layer in missing
        )
        if needed:
            needed += SPARE_BYTES
        self._layout.ensure_space(needed, keeping=[layer.digest for layer in missing])

    def publish(self, name: ModelName, data: bytes, manifest: Manifest) -> bool:
        """Write ``data``, byte for byte, as the manifest of ``name``.

        Otherwise as :meth:`.StoreLayout.replace_manifest`.

        :raises NotFound: a blob has been removed meanwhile; nothing is changed.
        :raises LoadFailed: the model is broken; nothing is changed.
        :raises StorageFailed: the store is not writable, or locked.
        """
        layout = self._layout
        self._check_present(manifest)
        with storage_errors(layout.root):
            check_pulled(name, manifest, layout.blobs, layout.cache)
        with layout.changing(name):
            self._check_present(manifest)
            return layout.replace_manifest(name, data, manifest.digests)

    def _check_present(self, manifest: Manifest) -> None:
        for digest in manifest.digests:
            if not self._layout.blobs.has(digest):
                raise NotFound(f"{digest} is not in the store any more; pull again")


class PushSource:
    """Reads a model: its manifest byte for byte, and its blobs. Changes nothing."""

    def __init__(self, root: Path) -> None:
        self._manifests = Manifests(root)
        self._blobs = Blobs(root)

    def stored_spelling(self, name: ModelName) -> ModelName:
        """The name as spelled in the store; lookups ignore case."""
        return self._manifests.stored_spelling(name)

    def manifest(self, name: ModelName) -> bytes:
        """:raises StorageFailed: it is missing (Ollama's text) or cannot be read.
        :raises BadRequest: it is too large.
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
        """:raises StorageFailed: a layer's blob is missing or has another size."""
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
        """Open a blob. It stays readable even if it is removed.

        :raises StorageFailed: it was removed before.
        """
        try:
            return FileIO(self._blobs.existing_path(digest))
        except OSError:
            raise StorageFailed(
                f"the model was removed while it was pushed: {digest} is gone"
            ) from None
