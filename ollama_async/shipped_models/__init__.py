"""The models that come with the package: ``NAME.gguf`` in this folder is the model ``NAME``.

A store without models is offered each of them once. That it was is remembered by an empty file in
the store, ``.ollama_async/NAME``, which Ollama passes over: whoever removes the model is not given
it again, unless they ask for it by name.

Everything here blocks: a model of 8 MB takes about 0.1 s, most of it for the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ollama_async.api.ollama import CreateRequest
from ollama_async.create.builder import create_model
from ollama_async.store.blobs import Blobs
from ollama_async.store.files import locked, storage_errors, sync_folder
from ollama_async.store.manifests import Manifests
from ollama_async.store.store import Store

FOLDER = Path(__file__).parent
LICENSE = FOLDER / "LICENSE"
MARKS = ".ollama_async"

_PARAMETERS: dict[str, dict[str, Any]] = {
    # so small a model is right about the likeliest token, not about how likely the others are, and
    # does not always find an end
    "demo": {"temperature": 0, "num_predict": 512},
}


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """Of the models whose file is there; a name is short and without a tag."""
    return tuple(sorted(path.stem for path in folder.glob("*.gguf")))


def add(store: Store, name: str, folder: Path = FOLDER) -> None:
    """Put one of :func:`names` into the store, in place of what has this name there.

    :raises ServerError: disk full or not writable, or the package's file is broken; the model that
        had the name is as it was.
    """
    with _alone(store.root):
        _add(store, name, folder)


def offer(store: Store, folder: Path = FOLDER) -> None:
    """Add what this store was never given, if it has no models; else leave it exactly as it is.

    Of servers that start on one store together, one adds. Once they were given, this costs a look
    at two folders.

    :raises ServerError: as :func:`add`.
    """
    if not _missing(store, folder):  # no lock file, then, in a store that is none of our business
        return
    with _alone(store.root):
        for name in _missing(store, folder):
            _add(store, name, folder)


def _missing(store: Store, folder: Path) -> list[str]:
    """What is to be offered. A model that cannot be read is one, too."""
    if next(Manifests(store.root).all(), None) is not None:
        return []
    return [name for name in names(folder) if not (store.root / MARKS / name).exists()]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """A lock of our own: the store's is taken, for short, by what is done meanwhile."""
    with storage_errors(root), locked(root / MARKS):
        yield


def _add(store: Store, name: str, folder: Path) -> None:
    file = folder / f"{name}.gguf"
    digest, _ = Blobs(store.root).put(file.read_bytes())
    request = CreateRequest(
        model=name,
        files={file.name: digest},
        parameters=_PARAMETERS.get(name),
        license=LICENSE.read_text(encoding="utf-8"),
    )
    for _ in create_model(store, request):
        pass  # it works as it is drawn
    marks = store.root / MARKS
    (marks / name).touch()
    sync_folder(marks)
