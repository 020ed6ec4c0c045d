"""The models in the package: ``NAME.gguf`` in this folder is the model ``NAME``.

Each is added once to a store without models. An empty file in the store, ``.ollama_async/NAME``,
records that; Ollama ignores it. A pull by name adds a removed model again.

Everything here blocks: adding a model of 8 MB takes about 0.1 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.create.builder import create_model
from ollama_async.store.files import locked, storage_errors, sync_folder
from ollama_async.store.store import Store

FOLDER = Path(__file__).parent
LICENSE = FOLDER / "LICENSE"
MARKS = ".ollama_async"

_PARAMETERS: dict[str, dict[str, Any]] = {
    # so small a model predicts only the likeliest token well, and may not end its answer
    "demo": {"temperature": 0, "num_predict": 512},
}


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """Names of the models in the folder, without tags."""
    return tuple(sorted(path.stem for path in folder.glob("*.gguf")))


def add(store: Store, name: str, folder: Path = FOLDER) -> None:
    """Add one of :func:`names` to the store, replacing a model of this name.

    :raises ServerError: disk full or not writable, or a broken file; an old model is unchanged.
    """
    with _locked_marks(store.root):
        _add(store, name, folder)


def offer(store: Store, folder: Path = FOLDER) -> None:
    """Add the models that were never added to this store, if it has no models.

    Only one of several servers adds them. Later calls read two folders. :raises ServerError:
    """
    if not _missing(store, folder):  # creates no lock file in a store that is not ours
        return
    with _locked_marks(store.root):
        for name in _missing(store, folder):
            _add(store, name, folder)


def _missing(store: Store, folder: Path) -> list[str]:
    """Names of the models to add; none if the store has any model, even a broken one."""
    if next(store.layout.manifests.paths(), None) is not None:
        return []
    return [name for name in names(folder) if not (store.root / MARKS / name).exists()]


@contextmanager
def _locked_marks(root: Path) -> Iterator[None]:
    """Hold a separate lock: creating a model acquires the store's lock."""
    with storage_errors(root), locked(root / MARKS):
        yield


def _add(store: Store, name: str, folder: Path) -> None:
    file = folder / f"{name}.gguf"
    digest, _ = store.layout.blobs.put(file.read_bytes())
    request = CreateRequest(
        model=name,
        files={file.name: digest},
        parameters=_PARAMETERS.get(name),
        license=LICENSE.read_text(encoding="utf-8"),
    )
    for _ in create_model(store, request):
        pass  # the work is done as the statuses are drawn
    marks = store.root / MARKS
    (marks / name).touch()
    sync_folder(marks)
