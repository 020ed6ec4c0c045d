"""The models of the package: offered once to an empty store, and whenever they are asked for."""

from __future__ import annotations

import contextlib
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ollama_async import shipped_models
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import StorageFailed
from ollama_async.create.builder import create_model
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


@pytest.fixture
def folder(tmp_path, tiny_gguf):
    """What a package with two models would hold."""
    place = tmp_path / "shipped"
    place.mkdir()
    tiny_gguf(general__author="chat").write(place / "demo.gguf")
    tiny_gguf(general__author="embeddings").write(place / "demo-embed.gguf")
    return place


def held(store):
    return sorted(model.name for model in list_models(store))


def files_of(root):
    """Every file below ``root``, with what tells whether it was touched."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_an_empty_store_is_given_what_there_is(store, folder):
    shipped_models.offer(store, folder)

    assert shipped_models.names(folder) == ("demo", "demo-embed")
    assert held(store) == ["demo-embed:latest", "demo:latest"]


def test_a_package_without_models_leaves_no_trace(store, tmp_path):
    shipped_models.offer(store, tmp_path)

    assert not store.root.exists()


def test_the_model_is_complete(store, folder):
    shipped_models.offer(store, folder)

    model = store.find("demo")
    assert Path(model.path).read_bytes() == (folder / "demo.gguf").read_bytes()
    assert model.parameters == {"temperature": 0, "num_predict": 512}
    assert Path(model.licenses[0]).read_text().startswith("MIT License")
    assert store.find("demo-embed").parameters == {}


def test_what_was_removed_does_not_come_back(store, folder):
    shipped_models.offer(store, folder)
    store.delete("demo")
    shipped_models.offer(store, folder)
    assert held(store) == ["demo-embed:latest"]

    store.delete("demo-embed")
    shipped_models.offer(store, folder)
    assert held(store) == []


def test_a_model_of_a_later_release_is_offered_to_a_store_that_was_emptied(store, folder):
    later = (folder / "demo-embed.gguf").rename(folder / "kept-back")
    shipped_models.offer(store, folder)
    store.delete("demo")

    later.with_name("kept-back").rename(folder / "demo-embed.gguf")
    shipped_models.offer(store, folder)

    assert held(store) == ["demo-embed:latest"]


def test_a_removed_shipped_model_is_added_by_a_pull(store, folder):
    shipped_models.offer(store, folder)
    store.delete("demo")

    shipped_models.add(store, "demo", folder)

    assert "demo:latest" in held(store)


def test_a_shipped_model_that_was_added_and_removed_is_not_added_again(store, folder):
    for name in shipped_models.names(folder):
        shipped_models.add(store, name, folder)
        store.delete(name)

    shipped_models.offer(store, folder)

    assert held(store) == []


def test_adding_again_brings_the_file_of_this_release(store, folder, tiny_gguf):
    shipped_models.add(store, "demo", folder)
    tiny_gguf(general__author="better").write(folder / "demo.gguf")

    shipped_models.add(store, "demo", folder)

    assert Path(store.find("demo").path).read_bytes() == (folder / "demo.gguf").read_bytes()


def test_a_store_with_a_model_is_not_changed(store, folder):
    shipped_models.add(store, "demo", folder)
    for _ in create_model(store, CreateRequest(model="mine", from_="demo")):
        pass
    store.delete("demo")
    shutil.rmtree(store.root / shipped_models.MARKS)  # as if we had never been here
    before = files_of(store.root)

    shipped_models.offer(store, folder)

    assert files_of(store.root) == before


def test_a_user_s_model_of_a_shipped_name_is_replaced_only_by_a_pull(store, folder):
    """Asked for, it is replaced, as a pull replaces what it finds: names have no case."""
    shipped_models.add(store, "demo-embed", folder)
    for _ in create_model(store, CreateRequest(model="Demo", from_="demo-embed")):
        pass
    store.delete("demo-embed")
    shutil.rmtree(store.root / shipped_models.MARKS)

    shipped_models.offer(store, folder)

    assert held(store) == ["Demo:latest"]
    own = (folder / "demo-embed.gguf").read_bytes()
    assert Path(store.find("demo").path).read_bytes() == own

    shipped_models.add(store, "demo", folder)

    assert held(store) == ["Demo:latest"]
    assert Path(store.find("demo").path).read_bytes() == (folder / "demo.gguf").read_bytes()


def test_a_broken_model_counts_as_a_model(store, folder):
    manifest = store.root / "manifests/registry.ollama.ai/library/strange/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(b"not ours to judge")

    shipped_models.offer(store, folder)

    assert list(files_of(store.root)) == [manifest]


def test_shipped_models_are_added_after_a_full_disk(store, folder):
    with files_of_at_most(100), pytest.raises(StorageFailed, match="too large for the disk"):
        shipped_models.offer(store, folder)
    assert held(store) == []

    shipped_models.offer(store, folder)

    assert held(store) == ["demo-embed:latest", "demo:latest"]


@contextlib.contextmanager
def files_of_at_most(limit_bytes):
    """What the disk allows this process meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_of_servers_that_start_together_one_adds(store, folder):
    written = []
    stores = [Store(store.root) for _ in range(4)]
    together = threading.Barrier(len(stores))

    def start(one):
        together.wait(10)
        shipped_models.offer(one, folder)
        written.append(files_of(store.root / "manifests"))

    with ThreadPoolExecutor(len(stores)) as threads:
        for ended in [threads.submit(start, one) for one in stores]:
            ended.result(30)

    assert held(store) == ["demo-embed:latest", "demo:latest"]
    last = files_of(store.root / "manifests")
    assert all(seen.items() <= last.items() for seen in written)  # nobody wrote a second time
