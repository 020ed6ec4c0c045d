"""Nothing is removed while it is unknown what the models need."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_async.core.errors import LoadFailed, NotFound
from ollama_async.store import prune
from ollama_async.store.manifests import LAYERS_LIMIT, MANIFEST_LIMIT_BYTES
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import MODEL, age, created, list_models

LIBRARY = "registry.ollama.ai/library"


def manifest(*digests: str, **more: object) -> bytes:
    layers = [{"mediaType": MODEL, "digest": digest, "size": 1} for digest in digests]
    return json.dumps({"schemaVersion": 2, "layers": layers, **more}).encode()


def put(store: Store, path: str | bytes, content: bytes) -> None:
    place = Path(os.fsdecode(os.fsencode(store.root / "manifests") + b"/" + os.fsencode(path)))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


@pytest.fixture
def precious(store: Store, tiny: str, upload: Callable[[bytes], str]) -> str:
    """An old blob of a model beside the model ``other``; both may be removed, so far."""
    created(store, model="other", files={"tiny.gguf": tiny})
    digest = upload(b"precious")
    age(store.layout.blobs.path(digest))
    return digest


@pytest.mark.parametrize(
    "path",
    [
        f"{LIBRARY}/a/v1+build",
        f"{LIBRARY}/a/two words",
        f"{LIBRARY}/a/{'t' * 90}",
        f"{LIBRARY}/a/.hidden",
        f"{LIBRARY}/-a/latest",
        f"{LIBRARY}/a/latest/extra",
        f"{LIBRARY}/latest",
        "example.com/ns.dot/a/latest",
        "latest",
        b"example.com/ns/a/\xff\xfe",
    ],
)
def test_a_manifest_with_a_name_that_no_model_can_have_keeps_all_blobs(
    store: Store, precious: str, path: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, path, manifest(precious))
    assert store.prune() == 0
    store.delete("other")
    assert store.layout.blobs.path(precious).exists()
    last = os.path.basename(os.fsdecode(path))  # noqa: PTH119  # not all are a Path's name
    assert [repr(last)[1:-1] in each.getMessage() for each in caplog.records] == [True, True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\0" * 100,
        manifest("sha256:" + "a" * 64)[:-20],
        manifest("sha512:" + "a" * 128),
        manifest("sha256:" + "a" * 64, annotations="x" * MANIFEST_LIMIT_BYTES),
        manifest(*["sha256:" + "a" * 64] * (LAYERS_LIMIT + 1)),
    ],
)
def test_a_manifest_that_cannot_be_understood_keeps_all_blobs(
    store: Store, tiny: str, precious: str, content: bytes
) -> None:
    put(store, f"{LIBRARY}/a/latest", content)
    assert store.prune() == 0
    store.delete("other")
    assert store.layout.blobs.path(precious).exists()
    assert store.layout.blobs.path(tiny).exists()


@pytest.mark.parametrize(
    "spelled", [str.upper, lambda digest: digest.replace(":", "-"), lambda digest: digest]
)
def test_every_spelling_of_a_digest_counts(
    store: Store, precious: str, spelled: Callable[[str], str]
) -> None:
    hexadecimal = precious.removeprefix("sha256:")
    put(store, "reg.example:5000/Some-One/A/V1", manifest(f"sha256:{spelled(hexadecimal)}"))
    folder = store.root / "blobs"
    for name in (f"sha256:{hexadecimal}", f"sha256-{hexadecimal.upper()}"):
        shutil.copy2(store.layout.blobs.path(precious), folder / name)
        age(folder / name)
    assert store.prune() == 0
    assert len(list(folder.glob(f"*{hexadecimal[8:]}"))) == 2  # a.k.a. lower and upper case


def test_a_digest_counts_wherever_a_manifest_mentions_it(
    store: Store, tiny: str, precious: str
) -> None:
    put(store, f"{LIBRARY}/a/latest", manifest(tiny, later={"kind": precious}))
    assert store.prune() == 0
    assert store.layout.blobs.path(precious).exists()


def test_folders_behind_links_count_and_links_to_nowhere_stop_everything(
    store: Store, precious: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    put(store, "example.com/ns/a/latest", manifest(precious))
    host = store.root / "manifests/example.com"
    host.rename(elsewhere)
    host.symlink_to(elsewhere)
    assert store.prune() == 0
    elsewhere.rename(tmp_path / "away")
    assert store.prune() == 0  # the disk is not there
    elsewhere.mkdir()
    assert store.prune() == 0  # but its mount point is
    host.unlink()
    assert store.prune() == 1


def test_only_regular_files_are_opened(store: Store, precious: str) -> None:
    folder = store.root / f"manifests/{LIBRARY}/a"
    folder.mkdir()
    os.mkfifo(folder / "latest")
    assert store.prune() == 0
    assert store.layout.blobs.path(precious).exists()


def test_a_folder_that_cannot_be_read_keeps_all_blobs(
    store: Store, precious: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "example.com/ns/a/latest", manifest(precious))

    class Closed:
        def scandir(self, path: str) -> object:
            if path.endswith("example.com"):
                raise PermissionError(13, "Permission denied", path)
            return os.scandir(path)

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

    monkeypatch.setattr(prune, "os", Closed())
    assert store.prune() == 0
    store.delete("other")
    assert store.layout.blobs.path(precious).exists()


def test_without_the_folder_of_manifests_nothing_is_pruned(store: Store, precious: str) -> None:
    shutil.rmtree(store.root / "manifests")
    assert store.prune() == 0
    assert store.layout.blobs.path(precious).exists()


def test_files_of_others_are_left_alone(store: Store, precious: str) -> None:
    strangers = [
        store.root / "blobs/SHA256-" / "x",
        store.root / "blobs" / "notes.txt",
        store.root / "blobs" / "model.gguf-incoming",
        store.root / "other/.tmp-abcdefgh",
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        age(path)
        os.utime(path, (0, 0))
    put(store, f"{LIBRARY}/.DS_Store", b"\0\0\0\1Bud1")
    put(store, f"{LIBRARY}/other/._latest", b"\0\5\26\7")
    assert store.prune() == 1
    assert not store.layout.blobs.path(precious).exists()
    assert all(path.exists() for path in strangers)


def test_only_changed_manifests_are_read_again(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        created(store, model=name, files={"tiny.gguf": tiny}, system=name)
    store.delete("a")
    read: list[str] = []
    monkeypatch.setattr(
        prune,
        "read_bounded",
        lambda path, limit: read.append(path.parent.name) or path.read_bytes()[:limit],
    )
    created(store, model="b", from_="b", system="new")
    store.delete("c")
    assert read == ["b"]
    with pytest.raises(NotFound):
        store.find("c")
    assert store.has_blob(tiny)


def test_a_manifest_over_the_limit_is_invalid(store: Store, tiny: str) -> None:
    put(store, f"{LIBRARY}/a/latest", manifest(tiny, annotations="x" * MANIFEST_LIMIT_BYTES))
    with pytest.raises(LoadFailed, match=r"^model 'a:latest' is broken: latest is larger than 104"):
        store.find("a")
    with pytest.raises(LoadFailed, match=r"^model 'a' is broken: latest is larger than 104"):
        store.copy("a", "b")
    store.delete("a")
    assert store.has_blob(tiny)


def test_links_in_a_circle_stop_the_pruning_and_not_the_list(store: Store, precious: str) -> None:
    folder = store.root / f"manifests/{LIBRARY}/a"
    folder.mkdir()
    (folder / "latest").symlink_to("latest")
    (store.root / "manifests/example.com").symlink_to("example.com")
    assert [model.name for model in list_models(store)] == ["other:latest"]
    assert store.prune() == 0
    with pytest.raises(NotFound):
        store.find("a")
    assert store.layout.blobs.path(precious).exists()
