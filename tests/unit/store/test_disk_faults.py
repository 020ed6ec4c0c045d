"""Uploads and models on disks that are full, closed or lose power."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ollama_async.core.errors import BadRequest, StorageFailed
from ollama_async.store import files
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import blobs, created


def test_a_mismatched_upload_leaves_nothing(store: Store) -> None:
    expected, got = f"sha256:{'0' * 64}", f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    with store.open_blob(expected.replace(":", "-")) as writer:
        writer.write(b"x")
        with pytest.raises(BadRequest) as caught:
            writer.commit()
    assert caught.value.message == f'digest mismatch, expected "{expected}", got "{got}"'
    assert blobs(store) == set()


def test_an_abandoned_upload_leaves_nothing(store: Store) -> None:
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        writer.write(b"x")
    assert blobs(store) == set()


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_a_digest_of_another_form_is_refused(store: Store, digest: str) -> None:
    for call in (store.has_blob, store.open_blob):
        with pytest.raises(BadRequest, match=r"^invalid digest format$"):
            call(digest)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on the disk of the model store"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "is not writable"),
        (errno.EROFS, "is not writable"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_disk_errors_are_explained(tmp_path: Path, number: int, text: str) -> None:
    with pytest.raises(StorageFailed, match=text), files.storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))


class FullDisk:
    """Stands in for ``os`` in the storage module: writing fails once ``left`` bytes are used."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, descriptor: int, data: memoryview) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(descriptor, data[: self.left])
        self.left -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Syncs:
    """The operating system, and which folders were made durable; ``wanted`` is looked at then."""

    def __init__(self, root: Path, wanted: str) -> None:
        self._root = root
        self._wanted = root / "blobs" / wanted.replace(":", "-")
        self.synced: dict[str, bool] = {}

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.synced[path.relative_to(self._root).as_posix()] = self._wanted.exists()
        os.fsync(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_new_folders_and_a_removal_outlast_a_power_cut(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(store.root, tiny)
    monkeypatch.setattr(files, "os", syncs)
    created(store, model="m", files={"tiny.gguf": tiny})
    host = "manifests/registry.ollama.ai"
    expected = {".", "blobs", "manifests", host, f"{host}/library", f"{host}/library/m"}
    assert set(syncs.synced) == expected
    syncs.synced.clear()
    store.delete("m")
    assert syncs.synced == {f"{host}/library/m": True}  # while the blob was still there
    assert not store.has_blob(tiny)


def test_a_full_disk_during_an_upload_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "os", FullDisk(10))
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        writer.write(b"12345")
        with pytest.raises(StorageFailed, match="no space left"):
            writer.write(b"1234567890")
    assert blobs(store) == set()


def test_a_full_disk_during_create_leaves_the_old_model(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(store, model="m", files={"tiny.gguf": tiny}, system="old")
    before = store.find("m")
    for left in (0, 3, 9, 60, 200):
        monkeypatch.setattr(files, "os", FullDisk(left))
        with pytest.raises(StorageFailed, match="no space left"):
            created(store, model="m", from_="m", system="quite new", parameters={"top_k": 3})
        assert store.find("m").digest == before.digest
        leftovers = [path for path in store.root.rglob("*") if path.name.startswith(".tmp-")]
        assert leftovers == []


@pytest.mark.slow
def test_a_file_size_limit_of_the_system_is_explained(store: Store) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ollama_async.core.errors import StorageFailed\n"
        "from ollama_async.store.store import Store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with Store(Path(sys.argv[1])).open_blob('sha256:' + '0' * 64) as writer:\n"
        "        writer.write(bytes(8192))\n"
        "except StorageFailed as error:\n"
        "    print(error.message)\n"
    )
    done = run(program, store.root)
    assert "too large for the disk" in done
    assert blobs(store) == set()


def test_an_unusable_store_is_explained(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    store = Store(tmp_path / "models")
    with pytest.raises(StorageFailed, match=r"model store .*models"):
        store.open_blob(f"sha256:{'0' * 64}")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_a_store_without_rights_is_explained(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir(mode=0o555)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ollama_async.core.errors import StorageFailed\n"
        "from ollama_async.store.store import Store\n"
        "os.chdir(sys.argv[1])\n"
        "os.seteuid(65534)\n"
        "try:\n"
        "    Store(Path('.')).open_blob('sha256:' + '0' * 64)\n"
        "except StorageFailed as error:\n"
        "    print(error.message)\n"
    )
    assert "is not writable" in run(program, root)


def run(program: str, root: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, str(root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
