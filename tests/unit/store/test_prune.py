"""What is deleted, what is pruned, and what stays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, NotFound
from ollama_async.create.builder import create_model
from ollama_async.store.manifests import Layer
from ollama_async.store.store import Store
from ollama_async.store.transfers import PullTarget
from tests.unit.store.store_helpers import age, blobs, created, list_models


def test_delete_keeps_what_others_need(store: Store, tiny: str) -> None:
    created(store, model="a", files={"tiny.gguf": tiny}, system="a")
    created(store, model="b", from_="a", system="b")
    store.delete("A")
    assert store.has_blob(tiny)
    assert store.find("b").system == "b"
    store.delete("b")
    assert blobs(store) == set()
    assert list((store.root / "manifests").iterdir()) == []
    with pytest.raises(NotFound, match=r"^model 'b' not found$"):
        store.delete("b")
    with pytest.raises(BadRequest, match=r'^name "b c" is invalid$'):
        store.delete("b c")


def test_delete_keeps_all_blobs_while_a_manifest_is_corrupt(store: Store, tiny: str) -> None:
    created(store, model="a", files={"tiny.gguf": tiny})
    created(store, model="b", from_="a")
    (store.root / "manifests/registry.ollama.ai/library/b/latest").write_text("{")
    store.delete("a")
    assert store.has_blob(tiny)


def test_prune_removes_only_what_is_old_and_unneeded(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    created(store, model="a", files={"tiny.gguf": tiny})
    old, new = upload(b"old"), upload(b"new")
    folder = store.root / "blobs"
    partial = folder / "sha256-abc-partial"
    partial.write_bytes(b"")
    (folder / ".tmp-new").write_bytes(b"")
    leftover = store.root / "manifests/registry.ollama.ai/library/a/.tmp-x"
    leftover.write_bytes(b"")
    (store.root / "manifests/empty/er").mkdir(parents=True)
    for path in (store.layout.blobs.path(old), partial, leftover, store.layout.blobs.path(tiny)):
        age(path)
    assert store.prune() == 3
    assert store.has_blob(new)
    assert store.has_blob(tiny)
    assert not store.has_blob(old)
    assert (folder / ".tmp-new").exists()
    assert not leftover.exists()
    assert not (store.root / "manifests/empty").exists()
    assert store.find("a")


def test_touched_blobs_are_not_pruned(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    """Another server that starts on the same store must not spoil what goes on in this one."""
    asked, pulled, created = upload(b"asked"), upload(b"pulled"), tiny
    for digest in (asked, pulled, created):
        age(store.layout.blobs.path(digest))
    assert store.has_blob(asked)
    assert PullTarget(store.layout).has(Layer("", pulled, len(b"pulled")))
    work = create_model(store, CreateRequest(model="m", files={"tiny.gguf": created}))
    assert Store(store.root).prune() == 0
    assert list(work)[-1] == {"status": "success"}


def test_what_is_being_written_is_not_pruned_however_long_it_takes(store: Store) -> None:
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        (path,) = (store.root / "blobs").iterdir()
        age(path)
        assert Store(store.root).prune() == 0
        writer.write(b"x")
    path.touch()  # as a killed process would have left it
    then = time.time() - 120
    os.utime(path, (then, then))
    assert store.prune() == 1


def test_prune_does_nothing_with_a_corrupt_manifest_or_if_disabled(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    old = upload(b"old")
    age(store.layout.blobs.path(old))
    assert Store(store.root, keeps_unused=True).prune() == 0
    created(store, model="a", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/a/latest"
    path.write_text("{")
    assert store.prune() == 0
    assert store.layout.blobs.path(old).exists()  # asking the store would keep it
    path.unlink()
    assert store.prune() == 1


def test_an_empty_store_needs_no_folder(store: Store) -> None:
    assert list_models(store) == []
    assert store.prune() == 0
    with pytest.raises(NotFound):
        store.find("x")
    with pytest.raises(NotFound):
        store.delete("x")
    assert not store.root.exists()
