"""``copy``: a second name for the same files."""

from __future__ import annotations

from pathlib import Path

from ollama_async.core.errors import BadRequest, LoadFailed, NotFound
from ollama_async.core.model_names import ModelName
from ollama_async.store.files import read_bounded
from ollama_async.store.layout import Shelf
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, read_manifest


def copy(shelf: Shelf, source: str, destination: str, *, keeps_unused: bool) -> None:
    """Give what ``source`` names the name ``destination``, too; a model of that name is replaced.

    Blocks. The new manifest appears whole, with the bytes of the old one; both names stand for the
    same blobs, which go with the last of them. ``keeps_unused``: leave those of a replaced model.

    :raises BadRequest: ``source "X" is invalid``, ``destination "X" is invalid``.
    :raises NotFound: ``model "SOURCE" not found``.
    :raises LoadFailed: the source's manifest is broken, or a blob of it is missing.
    :raises StorageFailed: the store is not writable, or locked.
    """
    old, new = _name("source", source), _name("destination", destination)
    if shelf.manifests.locate(old) is None:  # without a lock file in a store not ours
        raise NotFound(f'model "{source}" not found')
    with shelf.changing(new):
        path = shelf.manifests.locate(old)
        if path is None:
            raise NotFound(f'model "{source}" not found')
        data, digests = _read(shelf, path, source)
        replaced = shelf.manifests.locate(new)
        if replaced == path:
            return
        before = shelf.manifest(replaced) if replaced else None
        shelf.manifests.write(shelf.manifests.spelled(new), data)
        if before is not None and not keeps_unused:
            shelf.drop(before.digests - digests)


def _name(field: str, text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except ValueError:
        raise BadRequest(f'{field} "{text}" is invalid') from None


def _read(shelf: Shelf, path: str, source: str) -> tuple[bytes, set[str]]:
    """The manifest's bytes, and the blobs that it needs, all of which are there."""
    try:
        data = read_bounded(Path(path), MANIFEST_LIMIT_BYTES)
        digests = read_manifest(data).digests
    except BadRequest as error:
        raise LoadFailed(f"model '{source}' is broken: {error.message}") from None
    except OSError as error:
        raise LoadFailed(f"model '{source}' cannot be read: {error.strerror}") from None
    for digest in sorted(digests):
        if not shelf.blobs.has(digest):
            raise LoadFailed(f"model '{source}' is broken: {digest} is missing")
    return data, digests
