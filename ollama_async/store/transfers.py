"""What comes into the store from elsewhere: blobs first, then the manifest that needs them."""

from __future__ import annotations

from ollama_async.core.errors import NotFound
from ollama_async.core.model_names import ModelName
from ollama_async.store import partial_files
from ollama_async.store.files import storage_errors
from ollama_async.store.layout import Shelf
from ollama_async.store.manifest import Layer, Manifest
from ollama_async.store.model_reader import check_arrival
from ollama_async.store.partial_files import Partial

SPARE_BYTES = 64 << 20
"""Stays free beside a pull, which may take hours, for what else is going on on the disk."""


class Arrivals:
    """Every method blocks; digests are as :func:`.blobs.parse_digest` returns them."""

    def __init__(self, shelf: Shelf, *, keeps_unused: bool) -> None:
        self._shelf = shelf
        self._keeps_unused = keeps_unused

    def has(self, layer: Layer) -> bool:
        """Whether the blob is in the store, of the right size; it is not pruned soon, then."""
        blobs = self._shelf.blobs
        try:
            return blobs.touch(layer.digest) and blobs.size(layer.digest) == layer.size
        except OSError:
            return False

    def arrived(self, digest: str, total: int) -> int:
        """How much of a blob is on its way in, whoever is fetching it."""
        return partial_files.arrived(self._shelf.blobs, digest, total)

    def claim(self, layer: Layer, chunk_bytes: int) -> Partial | None:
        """See :meth:`.partial.Partial.claim`; the blob may be there meanwhile: ask again."""
        return Partial.claim(self._shelf.blobs, layer.digest, layer.size, chunk_bytes)

    def make_room(self, layers: list[Layer]) -> None:
        """:raises StorageFailed: what is missing of the layers does not fit onto the disk."""
        missing = [layer for layer in layers if not self.has(layer)]
        needed = sum(layer.size - self.arrived(layer.digest, layer.size) for layer in missing)
        if needed:
            needed += SPARE_BYTES
        self._shelf.make_room(needed, keeping=[layer.digest for layer in missing])

    def publish(self, name: ModelName, data: bytes, manifest: Manifest) -> bool:
        """Give the model its name: write ``data``, byte for byte, as its manifest.

        Layers that only the model of this name needed before are removed. Returns whether there
        were others than the new ones.

        :raises NotFound: a blob has been removed meanwhile; nothing is changed.
        :raises LoadFailed: the model is broken; nothing is changed.
        :raises StorageFailed: the store is not writable, or locked.
        """
        shelf = self._shelf
        self._check_present(manifest)
        with storage_errors(shelf.root):
            check_arrival(name, manifest, shelf.blobs, shelf.facts)
        with shelf.changing(name):
            self._check_present(manifest)
            name = shelf.manifests.spelled(name)
            old_path = shelf.manifests.locate(name)
            old = shelf.manifest(old_path) if old_path else None
            shelf.manifests.write(name, data)
            unused = old.digests - manifest.digests if old is not None else set()
            if unused and not self._keeps_unused:
                shelf.drop(unused)
        return bool(unused) and not self._keeps_unused

    def _check_present(self, manifest: Manifest) -> None:
        for digest in manifest.digests:
            if not self._shelf.blobs.has(digest):
                raise NotFound(f"{digest} is not in the store any more; pull again")
