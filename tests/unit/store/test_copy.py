"""A second name for the same files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, LoadFailed, NotFound
from ollama_async.create.builder import create_model
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import blobs, list_models

LIBRARY = "manifests/registry.ollama.ai/library"


def upload(store: Store, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with store.open_blob(digest) as writer:
        writer.write(data)
        writer.commit()
    return digest


@pytest.fixture
def store(tmp_path: Path, tiny_gguf: Any) -> Store:
    """Holds ``Tiny``."""
    store = Store(tmp_path / "models")
    make(store, "Tiny", upload(store, tiny_gguf().build()))
    return store


def make(store: Store, name: str, digest: str, **fields: Any) -> None:
    files = {"t.gguf": digest}
    list(create_model(store, CreateRequest(model=name, files=files, **fields)))


def names(store: Store) -> set[str]:
    return {model.name for model in list_models(store)}


def test_a_copy_is_the_same_model_and_survives_deletion_of_the_first(store: Store) -> None:
    before = blobs(store)
    store.copy("tiny", "someone/else:v1")
    assert names(store) == {"Tiny:latest", "someone/else:v1"}
    assert store.find("someone/else:v1").digest == store.find("tiny").digest
    assert blobs(store) == before

    store.delete("tiny")
    assert store.find("someone/else:v1").details.family == "llama"
    store.delete("someone/else:v1")
    assert blobs(store) == set()


def test_the_copy_has_the_very_bytes_of_the_manifest(store: Store) -> None:
    path = store.root / LIBRARY / "Tiny/latest"
    path.write_bytes(path.read_bytes().replace(b"}\n", b', "annotations": {}}\n'))
    store.copy("Tiny", "other")
    assert (store.root / LIBRARY / "other/latest").read_bytes() == path.read_bytes()


def test_a_copy_onto_itself_in_any_spelling_changes_nothing(store: Store) -> None:
    path = store.root / LIBRARY / "Tiny/latest"
    before = path.stat()
    store.copy("tiny", "TINY:Latest")
    assert path.stat() == before
    assert names(store) == {"Tiny:latest"}


def test_the_blobs_of_a_replaced_model_are_removed(store: Store, tiny_gguf: Any) -> None:
    needed = blobs(store)
    make(store, "Old", upload(store, tiny_gguf(general__x="y").build()), system="old")
    store.copy("tiny", "old")
    assert names(store) == {"Tiny:latest", "Old:latest"}  # the spelling that was there
    assert store.find("old").system == ""
    assert blobs(store) == needed


def test_pruning_may_be_off(store: Store, tiny_gguf: Any) -> None:
    make(store, "old", upload(store, tiny_gguf(general__x="y").build()), system="old")
    before = blobs(store)
    Store(store.root, keeps_unused=True).copy("tiny", "old")
    assert blobs(store) == before


@pytest.mark.parametrize(
    ("source", "destination", "kind", "text"),
    [
        ("nosuch", "b", NotFound, 'model "nosuch" not found'),
        ("a b", "b", BadRequest, 'source "a b" is invalid'),
        ("", "b", BadRequest, 'source "" is invalid'),
        ("tiny", "../b", BadRequest, 'destination "../b" is invalid'),
        ("nosuch", "../b", BadRequest, 'destination "../b" is invalid'),
    ],
)
def test_a_failed_copy_is_reported_and_changes_nothing(
    store: Store, source: str, destination: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as told:
        store.copy(source, destination)
    assert str(told.value) == text
    assert names(store) == {"Tiny:latest"}


def test_a_broken_model_is_not_published_again(store: Store) -> None:
    path = Path(store.find("tiny").path)
    path.unlink()
    with pytest.raises(LoadFailed, match=r"^model 'tiny' is broken: sha256:.* is missing$"):
        store.copy("tiny", "other")
    (store.root / LIBRARY / "Tiny/latest").write_text("{")
    with pytest.raises(LoadFailed, match=r"^model 'tiny' is broken: "):
        store.copy("tiny", "other")
    assert not (store.root / LIBRARY / "other").exists()


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store(tmp_path / "none").copy("a", "b")
    assert not (tmp_path / "none").exists()
