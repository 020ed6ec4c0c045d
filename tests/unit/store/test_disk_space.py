"""Room on the disk: asked for before the work begins, and what gives way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import StorageFailed
from ollama_async.create import quantize
from ollama_async.create.builder import create_model
from ollama_async.store.blobs import Blobs
from ollama_async.store.layout import StoreLayout
from ollama_async.store.partial_files import PartialFile, partial_path
from ollama_async.store.store import Store
from tests.unit.convert.folders import files_of
from tests.unit.store.store_helpers import list_models

PIECE = 1 << 20
NO_SPACE = r"^no space left on the disk of the model store .*: \d+ bytes are needed, \d+ are free$"


class Usage(NamedTuple):
    free: int


class Disk:
    """How much the system says is free: ``free`` bytes, and what unfinished downloads took."""

    def __init__(self) -> None:
        self.free = 1 << 40
        self.folder: Path | None = None
        self.begun = 0

    def usage(self, _folder: Path) -> Usage:
        left = len(list(self.folder.glob("*-incoming"))) if self.folder else 0
        return Usage(self.free + (self.begun - left) * PIECE)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


@pytest.fixture
def begin(store: Store, disk: Disk) -> Iterator[Callable[..., PartialFile]]:
    """Begin a download of :data:`PIECE` bytes, touched so many hours ago."""
    blobs = Blobs(store.root)
    disk.folder = blobs.folder
    begun: list[PartialFile] = []

    def begin(digit: str, hours: int) -> PartialFile:
        partial = PartialFile.claim(blobs, f"sha256:{digit * 64}", PIECE, PIECE)
        assert partial is not None
        then = partial_path(blobs, partial.digest).stat().st_mtime - hours * 3600
        os.utime(partial_path(blobs, partial.digest), (then, then))
        begun.append(partial)
        disk.begun = len(begun)
        return partial

    yield begin
    for partial in begun:
        partial.close()


def left(store: Store) -> str:
    names = (path.name for path in (store.root / "blobs").glob("*-incoming"))
    return "".join(sorted(name[len("sha256-")] for name in names))


def leftovers(store: Store) -> list[Path]:
    return list(store.root.rglob(".tmp-*"))


def test_a_model_that_would_not_fit_is_not_quantized(
    store: Store,
    tiny_model: Path,
    upload: Callable[[bytes], str],
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize, "MODULE", "no.such.module")  # it must not even be started
    files = {"tiny.gguf": upload(tiny_model.read_bytes())}
    disk.free = 1000
    work = create_model(store, CreateRequest(model="m", files=files, quantize="q8_0"))
    with pytest.raises(StorageFailed, match=NO_SPACE):
        list(work)
    assert leftovers(store) == []
    assert list_models(store) == []


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_directory_that_would_not_fit_is_not_converted(
    store: Store, upload: Callable[[bytes], str], disk: Disk, name: str
) -> None:
    files = {each: upload(path.read_bytes()) for each, path in files_of(name).items()}
    disk.free = 1000
    work = create_model(store, CreateRequest(model="m", files=files))
    assert next(work) == {"status": "converting model"}
    with pytest.raises(StorageFailed, match=NO_SPACE):
        list(work)
    assert leftovers(store) == []


def test_a_file_of_the_server_that_would_not_fit_is_not_copied(
    store: Store, tiny_model: Path, disk: Disk
) -> None:
    disk.free = 1000
    request = CreateRequest(model="m", modelfile=f"FROM {tiny_model}")
    with pytest.raises(StorageFailed, match=NO_SPACE):
        list(create_model(store, request, reads_files=True))
    assert leftovers(store) == []


def test_an_upload_that_would_not_fit_is_not_begun(store: Store, disk: Disk) -> None:
    disk.free = 1000
    with pytest.raises(StorageFailed, match=NO_SPACE):
        store.open_blob(f"sha256:{'0' * 64}", 1001)
    with store.open_blob(f"sha256:{'0' * 64}", 1000):
        pass


def test_abandoned_downloads_are_removed_oldest_first_for_space(
    store: Store, begin: Callable[..., Any], disk: Disk
) -> None:
    for digit, hours in (("a", 25), ("b", 28), ("c", 27), ("d", 29), ("f", 23)):
        begin(digit, hours).close()
    begin("e", 99)  # in use
    layout = StoreLayout(store.root)
    disk.free = 100
    layout.ensure_space(100)
    assert left(store) == "abcdef"
    layout.ensure_space(PIECE, keeping=[f"sha256:{'d' * 64}"])
    assert left(store) == "acdef"
    with pytest.raises(StorageFailed, match=NO_SPACE):
        layout.ensure_space(5 * PIECE)
    assert left(store) == "ef"  # what is young stays
