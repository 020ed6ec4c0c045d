"""A server whose store is full of what is slow, broken, misnamed or very large."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollama_async.store.manifests import read_manifest
from tests.integration.conftest import LONG_WAIT_S, RunningServer
from tests.unit.gguf_files import GgufBuilder, build_tiny

pytestmark = pytest.mark.slow

Start = Callable[..., RunningServer]

STRINGS = (1 << 22) - 1
"""In an array of a header: as many as the reader passes over, one Python step for each."""
LIBRARY = "registry.ollama.ai/library"
BROKEN = ("broken", "truncated", "holey", "empty", "huge", "texts", "pipe", "piped")


class Planted:
    """A store on the disk, written as other programs might."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)
        (root / "manifests").mkdir()

    def blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.path(digest).write_bytes(data)
        return digest

    def slow_blob(self, number: int) -> str:
        """A header of four million empty texts; after them the file ends too early. Takes no room
        on the disk, and the name is a lie, which nobody looks at.
        """
        digest = f"sha256:{number:064x}"
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + GgufBuilder.string("tokenizer.ggml.tokens")
        head += struct.pack("<IIQ", 9, 8, STRINGS)
        with self.path(digest).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + 8 * STRINGS + 3)
        return digest

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "-")

    def manifest(self, place: str, *digests: str, **more: Any) -> Path:
        """At a path below the manifests; of layers that are models."""
        path = self.root / "manifests" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "application/vnd.ollama.image.model"
        layers = [{"mediaType": kind, "digest": digest, "size": 1} for digest in digests]
        path.write_text(json.dumps({"schemaVersion": 2, "layers": layers, **more}))
        return path

    def age(self) -> None:
        """Everything is two days old."""
        then = time.time() - 2 * 86400
        for path in self.root.rglob("*"):
            if path.is_file():
                os.utime(path, (then, then))


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "models")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=LONG_WAIT_S) as client:
        yield client


def test_slow_broken_models_do_not_delay_other_requests(
    start_server: Start, planted: Planted, client: httpx.Client
) -> None:
    count = 5
    for number in range(count):
        planted.manifest(f"{LIBRARY}/slow{number}/latest", planted.slow_blob(number))
    server = start_server(scripts={"m": {}})
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    client.post(f"{server.url}/api/chat", json=chat).raise_for_status()  # loads it
    done = threading.Event()

    def list_models(_: int) -> int:
        models = httpx.get(f"{server.url}/api/tags", timeout=LONG_WAIT_S).json()["models"]
        done.set()
        return len(models)

    with ThreadPoolExecutor(12) as threads:
        lists = threads.map(list_models, range(12))
        rounds = 0
        while not done.is_set():
            client.get(f"{server.url}/metrics").raise_for_status()
            client.post(f"{server.url}/api/chat", json=chat).raise_for_status()
            assert client.head(f"{server.url}/api/blobs/sha256:{'f' * 64}").status_code == 404
            assert client.post(f"{server.url}/api/show", json={"model": "no"}).status_code == 404
            rounds += 1
        assert list(lists) == [1] * 12
    assert rounds > 3  # while the first list was made
    assert server.log.count("is broken: invalid GGUF file") == count  # each was read once


def test_a_slow_model_is_read_once_for_all_who_ask(start_server: Start, planted: Planted) -> None:
    planted.manifest(f"{LIBRARY}/slow/latest", planted.slow_blob(1))
    server = start_server(scripts={"m": {}})

    def ask(_: int) -> str:
        body = {"model": "slow", "prompt": "hi"}
        answer = httpx.post(f"{server.url}/api/generate", json=body, timeout=LONG_WAIT_S)
        assert answer.status_code == 500
        return str(answer.json()["error"])

    with ThreadPoolExecutor(32) as threads:
        (text,) = set(threads.map(ask, range(32)))
    assert text.startswith("model 'slow:latest' is broken: invalid GGUF file")
    assert server.log.count("is broken: invalid GGUF file") == 1


@pytest.mark.parametrize(
    "place",
    ["a/v1+build", f"a/{'t' * 90}", "../../latest"],
)
def test_a_misnamed_manifest_keeps_its_blobs_over_a_start_and_a_removal(
    start_server: Start, planted: Planted, client: httpx.Client, place: str
) -> None:
    shared = planted.blob(build_tiny().build())
    precious = planted.blob(b"precious")
    planted.manifest(f"{LIBRARY}/other/latest", shared)
    misnamed = planted.manifest(f"{LIBRARY}/{place}", shared, precious)
    planted.age()
    server = start_server(scripts={"m": {}})
    deletion = client.request("DELETE", f"{server.url}/api/delete", json={"model": "other"})
    assert deletion.status_code == 200
    for digest in (shared, precious):
        assert planted.path(digest).exists()
    assert server.log.count(misnamed.name) == 2  # the start and the removal say why


def test_manifests_that_are_slow_to_read_are_not_read_for_every_removal(
    start_server: Start, planted: Planted, client: httpx.Client
) -> None:
    filler = {"annotations": {str(number): "x" * 80 for number in range(8_000)}}
    digest = planted.blob(build_tiny().build())
    for number in range(24):
        path = planted.manifest(f"{LIBRARY}/big{number}/latest", digest, **filler)
    began = time.process_time()
    read_manifest(path.read_bytes())
    one_s = time.process_time() - began
    server = start_server(scripts={"m": {}})
    before_s = server.process.cpu_times().user
    for number in range(12):
        body = {"model": f"big{number}"}
        client.request("DELETE", f"{server.url}/api/delete", json=body).raise_for_status()
    spent_s = server.process.cpu_times().user - before_s
    assert spent_s < 130 * one_s + 1  # for every one of them all others would be 210
    assert planted.path(digest).exists()


def test_copies_of_a_model_take_next_to_no_memory(
    start_server: Start, client: httpx.Client
) -> None:
    server = start_server(offers_shipped=True)
    turns = [{"role": "user", "content": "x"}] * 20_000
    asked = {"model": "a", "from": "demo", "system": "s" * 1_000_000, "messages": turns}
    client.post(f"{server.url}/api/create", json={**asked, "stream": False}).raise_for_status()
    client.get(f"{server.url}/api/tags").raise_for_status()
    before = server.process.memory_info().rss
    for number in range(60):
        body = {"source": "a", "destination": f"copy{number}"}
        client.post(f"{server.url}/api/copy", json=body).raise_for_status()
    assert len(client.get(f"{server.url}/api/tags").json()["models"]) >= 61
    assert server.process.memory_info().rss - before < 100 << 20


def errors_of(server: RunningServer, client: httpx.Client, planted: Planted) -> Iterator[str]:
    """The bodies of answers to requests that fail, each in its way."""
    url = server.url
    for name in (*BROKEN, "unloadable", "none"):
        for path in ("generate", "chat", "show", "delete", "push"):
            body = {"model": name, "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
            method = "DELETE" if path == "delete" and name == "none" else "POST"
            yield client.request(method, f"{url}/api/{path}", json=body).text
        yield client.post(f"{url}/api/copy", json={"source": name, "destination": "x"}).text
        yield client.post(f"{url}/api/create", json={"model": "x", "from": name}).text
    yield client.post(f"{url}/api/generate", json={"model": "sound", "prompt": "x"}).text
    long_name = "h" * 300 + "/ns/m"
    for path in ("show", "generate", "push"):
        yield client.post(f"{url}/api/{path}", json={"model": long_name}).text
    yield client.post(f"{url}/api/create", json={"model": long_name, "from": "sound"}).text
    digest = f"sha256:{'0' * 64}"
    yield client.post(f"{url}/api/blobs/{digest}", content=b"x").text
    for quantize in ("q8_0", "q4_K_M"):
        asked = {"model": "x", "from": "unloadable", "quantize": quantize}
        yield client.post(f"{url}/api/create", json=asked).text
    blobs = planted.root / "blobs"
    blobs.rename(planted.root / "away")
    blobs.write_text("a file where the folder should be")
    yield client.post(f"{url}/api/blobs/{digest}", content=b"x").text
    yield client.post(f"{url}/api/create", json={"model": "x", "from": "sound", "system": "y"}).text
    yield client.post(f"{url}/api/show", json={"model": "sound"}).text
    yield client.post(f"{url}/api/pull", json={"model": "demo"}).text
    blobs.unlink()
    (planted.root / "away").rename(blobs)
    (planted.root / ".lock").unlink()
    (planted.root / ".lock").mkdir()
    yield client.request("DELETE", f"{url}/api/delete", json={"model": "sound"}).text
    yield client.post(f"{url}/api/copy", json={"source": "sound", "destination": "y"}).text


def test_no_error_names_a_path_of_this_machine(
    start_server: Start, planted: Planted, client: httpx.Client, tmp_path: Path
) -> None:
    sound = planted.blob(build_tiny().build())
    planted.manifest(f"{LIBRARY}/sound/latest", sound)
    planted.manifest(f"{LIBRARY}/broken/latest", planted.blob(b"GGUF"))
    planted.manifest(f"{LIBRARY}/truncated/latest", planted.blob(build_tiny().build()[:-9]))
    planted.manifest(f"{LIBRARY}/holey/latest", f"sha256:{'a' * 64}")
    planted.manifest(f"{LIBRARY}/empty/latest").write_bytes(b"")
    planted.manifest(f"{LIBRARY}/huge/latest", sound, annotations="x" * (2 << 20))
    folder = planted.blob(b"a folder")
    planted.path(folder).unlink()
    planted.path(folder).mkdir()
    planted.manifest(f"{LIBRARY}/texts/latest", folder)
    os.mkfifo(planted.path(f"sha256:{'e' * 64}"))
    planted.manifest(f"{LIBRARY}/piped/latest", f"sha256:{'e' * 64}")
    os.mkfifo(planted.manifest(f"{LIBRARY}/pipe/other").with_name("latest"))
    no_layers = build_tiny(tokenizer__chat_template="{{ x }}").text("general.name", b"other name")
    planted.manifest(f"{LIBRARY}/unloadable/latest", planted.blob(no_layers.build()))
    server = start_server()
    bodies = list(errors_of(server, client, planted))
    assert sum('"error"' in body for body in bodies) > 50
    private = [str(tmp_path), str(Path.home()), "/blobs/sha256-0"]
    for body in bodies:
        assert not [path for path in private if path in body], body
    assert any("$OLLAMA_MODELS" in body for body in bodies)
    assert str(planted.root) in server.log
    (planted.root / ".lock").rmdir()
