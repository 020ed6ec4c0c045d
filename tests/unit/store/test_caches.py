"""What was read is read again only if it changed, and takes no more room than it may."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Message
from ollama_async.core.errors import BadRequest, LoadFailed, StorageFailed
from ollama_async.core.model_names import ModelName
from ollama_async.gguf.reader import read_header
from ollama_async.store import cache as cache_module
from ollama_async.store import prune
from ollama_async.store.cache import FileCache
from ollama_async.store.manifests import layer_type
from ollama_async.store.store import Store
from ollama_async.store.transfers import PushSource
from tests.unit.gguf_files import build_tiny
from tests.unit.store.store_helpers import age, created, list_models


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(1, 60))))
def test_a_value_is_what_was_put_last_or_nothing_and_the_room_is_kept(
    puts: list[tuple[int, int, int]],
) -> None:
    memory: FileCache[tuple[int, int, int]] = FileCache(100)
    latest: dict[int, tuple[int, int, int]] = {}
    for put in puts:
        key, signature, size = put
        memory.put(key, signature, put, size)
        latest[key] = put
        assert memory.get(key, signature) == put
        kept = [each for each in latest.values() if memory.get(each[0], each[1]) == each]
        assert sum(size for _, _, size in kept) <= 100
        assert memory.get(key, signature + 1) is None
        assert memory.get(key, signature) is None
        memory.put(key, signature, put, size)


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    memory: FileCache[str] = FileCache(2)
    memory.put("a", 0, "a", 1)
    memory.put("b", 0, "b", 1)
    assert memory.get("a", 0)
    memory.put("c", 0, "c", 1)
    memory.put("d", 0, "too large", 3)
    assert [memory.get(key, 0) for key in "abcd"] == ["a", None, "c", None]


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read."""
    read: list[str] = []

    def reading(path: Any) -> Any:
        read.append(path.name)
        return read_header(path)

    monkeypatch.setattr(cache_module, "read_header", reading)
    return read


def plant(store: Store, name: str, digest: str) -> None:
    """A model of a blob that need not be sound."""
    path = store.root / f"manifests/registry.ollama.ai/library/{name}/latest"
    path.parent.mkdir(parents=True, exist_ok=True)
    layer = f'{{"mediaType":"application/vnd.ollama.image.model","digest":"{digest}","size":1}}'
    path.write_text(f'{{"schemaVersion":2,"layers":[{layer}]}}')


def test_a_broken_file_is_read_once_until_it_changes(
    store: Store,
    upload: Callable[[bytes], str],
    headers: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = build_tiny().build()
    digest = upload(whole[:-1])
    for name in "ab":
        plant(store, name, digest)
    for _ in range(3):
        assert list_models(store) == []
        with pytest.raises(LoadFailed, match="model 'a:latest' is broken: invalid GGUF"):
            store.find("a")
        assert store.has_blob(digest)  # asking for it is no change
    assert len(headers) == 1
    assert len(caplog.records) == 2  # one for each name
    store.layout.blobs.path(digest).write_bytes(whole)
    assert [model.name for model in list_models(store)] == ["a:latest", "b:latest"]
    assert len(headers) == 2


def test_a_missing_file_that_comes_is_seen(store: Store, tiny: str) -> None:
    plant(store, "a", tiny)
    path = store.layout.blobs.path(tiny)
    away = path.rename(path.with_name("away"))
    for _ in range(2):
        with pytest.raises(LoadFailed, match="is missing"):
            store.find("a")
    away.rename(path)
    assert store.find("a")


def test_rights_that_are_given_are_seen(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, "a", tiny)

    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "read_header", refuse)
        with pytest.raises(LoadFailed, match=r"^model 'a:latest' is broken: Permission denied$"):
            store.find("a")
    assert store.find("a")


def test_an_unreadable_manifest_is_logged_once_and_read_after_a_repair(
    store: Store, tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant(store, "a", tiny)
    path = store.root / "manifests/registry.ollama.ai/library/a/latest"
    data = path.read_bytes()
    path.write_bytes(b"{")
    for _ in range(3):
        assert list_models(store) == []
    assert len(caplog.records) == 1
    path.write_bytes(data)
    assert len(list_models(store)) == 1


def test_a_blob_that_was_touched_lately_is_not_touched_again(store: Store, tiny: str) -> None:
    path = store.layout.blobs.path(tiny)
    age(path)
    assert store.has_blob(tiny)
    first = path.stat().st_mtime_ns
    assert store.has_blob(tiny)
    assert path.stat().st_mtime_ns == first


def test_copies_share_their_texts(store: Store, tiny: str) -> None:
    messages = [Message(role="user", content=f"{number}") for number in range(50)]
    created(store, model="a", files={"t.gguf": tiny}, system="s" * 5000, messages=messages)
    store.copy("a", "b")
    one, other = store.find("a"), store.find("b")
    assert one.system is other.system
    assert one.messages is other.messages
    assert one.summary is other.summary


def test_what_models_take_is_counted(store: Store, tiny: str) -> None:
    text = "ü" * 100_000
    created(store, model="a", files={"t.gguf": tiny}, system=text, parameters={"stop": ["x"] * 200})
    model = store.find("a")
    assert model.memory_bytes > sys.getsizeof(text) + sys.getsizeof(["x"] * 200)
    assert model.list_entry.memory_bytes < 8192


def test_references_are_read_before_others_have_to_wait(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        created(store, model=name, files={"t.gguf": tiny}, system=name)
    held: list[bool] = []
    reader = Store(store.root)
    original = prune.read_bounded

    def reading(path: Any, limit: int) -> bytes:
        held.append(_is_locked(store))
        return original(path, limit)

    monkeypatch.setattr(prune, "read_bounded", reading)
    reader.delete("a")
    assert held == [False] * 3


def _is_locked(store: Store) -> bool:
    descriptor = os.open(store.root / ".lock", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_fault_is_a_new_exception_each_time(store: Store, upload: Callable[[bytes], str]) -> None:
    digest = upload(b"GGUF")
    cache = cache_module.BlobCache(store.layout.blobs)
    with pytest.raises(BadRequest) as first:
        cache.summary(digest)
    with pytest.raises(BadRequest) as second:
        cache.summary(digest)
    assert first.value is not second.value


@pytest.mark.parametrize("kind", ["model", "template", "license", "params"])
def test_a_pipe_in_place_of_a_blob_does_not_block(store: Store, tiny: str, kind: str) -> None:
    plant(store, "a", tiny)
    path = store.root / "manifests/registry.ollama.ai/library/a/latest"
    pipe = f"sha256:{'f' * 64}"
    os.mkfifo(store.layout.blobs.path(pipe))
    layers = [{"mediaType": layer_type("model"), "digest": tiny, "size": 1}]
    layers.insert(0, {"mediaType": layer_type(kind), "digest": pipe, "size": 1})
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    with pytest.raises(LoadFailed, match=r"not a file|not in GGUF format"):
        store.find("a")


def test_a_pipe_in_place_of_a_manifest_does_not_block(store: Store) -> None:
    path = store.root / "manifests/registry.ollama.ai/library/a/latest"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(StorageFailed, match=r"library/a/latest: no such file or directory$"):
        PushSource(store.root).manifest(ModelName.parse("a"))
