"""Threads and processes that share one store, some of them killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from ollama_async.core.errors import StorageFailed
from ollama_async.store import files
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import age, blobs, created, list_models, needed


def test_a_killed_upload_leaves_a_store_that_prune_cleans(store: Store) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ollama_async.store.store import Store\n"
        "writer = Store(Path(sys.argv[1])).open_blob('sha256:' + '0' * 64)\n"
        "writer.write(bytes(100_000))\n"
        "print('written', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    assert not store.has_blob(f"sha256:{'0' * 64}")
    (leftover,) = (store.root / "blobs").iterdir()
    assert store.prune() == 0
    age(leftover)
    assert store.prune() == 1


CREATOR = """
import itertools, sys
from pathlib import Path
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.create.builder import create_model
from ollama_async.store.store import Store
store = Store(Path(sys.argv[1]))
for turn in itertools.count():
    list(create_model(store, CreateRequest(model="m", from_="m", system=f"{turn}")))
    print("created", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_a_killed_create_leaves_a_whole_model(store: Store, tiny: str, turns: int) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    with subprocess.Popen(
        [sys.executable, "-c", CREATOR, str(store.root)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(turns):
            assert child.stdout.readline() == "created\n"
        child.send_signal(signal.SIGKILL)
    assert store.find("m").system.isdigit()
    created(store, model="m", from_="m", system="after")  # the lock died with its holder
    assert store.find("m").system == "after"
    for path in store.root.rglob("*"):
        if path.is_file():
            age(path)
    store.prune()
    assert blobs(store) == needed(store)


WRITER = """
import sys
from pathlib import Path
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.create.builder import create_model
from ollama_async.store.store import Store
store, me = Store(Path(sys.argv[1])), sys.argv[2]
for turn in range(15):
    list(create_model(store, CreateRequest(model=me, from_="base", system=f"{me} {turn}")))
    if turn % 3 == 2:
        store.delete(me)
    else:
        assert store.find(me).system == f"{me} {turn}"
list(create_model(store, CreateRequest(model=me, from_="base", system="common")))
"""


@pytest.mark.slow
def test_two_processes_share_one_store(store: Store, tiny: str) -> None:
    created(store, model="base", files={"tiny.gguf": tiny})
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.root), name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for child in children:
        _, errors = child.communicate(timeout=50)
        assert child.returncode == 0, errors
    assert {model.name: store.find(model.name).system for model in list_models(store)} == {
        "base:latest": "",
        "one:latest": "common",
        "two:latest": "common",
    }
    assert blobs(store) == needed(store)


def test_threads_that_replace_one_name_leave_one_whole_model(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    errors: list[Exception] = []

    def replace(number: int) -> None:
        try:
            for turn in range(5):
                created(store, model="m", from_="m", system=f"{number} {turn}")
                store.find("m")
        except Exception as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=replace, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.find("m").system.endswith(" 4")


def test_a_lock_that_is_never_free_is_an_error(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    monkeypatch.setattr(files, "_LOCK_TIMEOUT_S", 0.0)
    with (
        files.locked(store.root),
        pytest.raises(StorageFailed, match="locked by another process"),
    ):
        store.delete("m")
    store.delete("m")
