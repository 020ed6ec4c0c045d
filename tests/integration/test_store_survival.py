"""Servers that are killed in the middle of changes, that share a store, or that run out of disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import StorageFailed
from ollama_async.create import quantize
from ollama_async.create.builder import create_model
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models

pytestmark = pytest.mark.slow

LLAMA = Path(__file__).parents[1] / "fixtures" / "convert" / "llama"
LAYERS = 500
ROUNDS = 5
MOST_ANSWERS = 60
"""Until a server is killed; and then up to so long, most often within a request:"""
LONGEST_S = 0.05


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check(root: Path) -> set[str]:
    """Every blob is what its name says, every named model is complete; the models' paths."""
    for path in (root / "blobs").iterdir():
        if path.name.startswith("sha256-"):
            assert digest_of(path.read_bytes()).replace(":", "-") == path.name
    found = set()
    for path in (root / "manifests").rglob("*"):
        if path.is_file() and not path.name.startswith(".tmp-"):
            manifest = json.loads(path.read_bytes())
            for layer in [*manifest["layers"], manifest["config"]]:
                blob = root / "blobs" / layer["digest"].replace(":", "-")
                assert blob.stat().st_size == layer["size"]
            found.add(path.relative_to(root / "manifests").as_posix())
    return found


class Killer:
    """Kills a server at some moment after so many answers."""

    def __init__(self, process: Any, answers: int, delay_s: float) -> None:
        self._left = answers
        self._lock = threading.Lock()
        self._timer = threading.Timer(delay_s, process.kill)

    def answered(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._timer.start()

    def join(self) -> None:
        assert self._left <= 0, "it was never killed"
        self._timer.join()


class Changes(threading.Thread):
    """Uploads, creates, copies and deletes until the server is gone or ``turns`` are over."""

    def __init__(
        self, url: str, data: bytes, seed: int, answered: Callable[[], None], turns: int = 1 << 30
    ) -> None:
        super().__init__()
        self.failures: list[str] = []
        self._url = url
        self._data = data
        self._chance = random.Random(seed)
        self._answered = answered
        self._turns = turns

    def run(self) -> None:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(base_url=self._url, timeout=30) as client,
        ):
            for _ in range(self._turns):
                for answer in self._change(client):
                    self._answered()
                    if answer.status_code >= 500:
                        self.failures.append(answer.text)

    def _change(self, client: httpx.Client) -> Iterator[httpx.Response]:
        data = self._data + bytes([self._chance.randrange(4)])  # padding: still a sound GGUF
        digest = digest_of(data)
        name, other = (f"m{self._chance.randrange(3)}" for _ in range(2))
        texts = {"system": f"{self._chance.random()}", "parameters": {"seed": 1}}
        yield client.post(f"/api/blobs/{digest}", content=data)
        asked = {"model": name, "files": {"m.gguf": digest}, **texts}
        yield client.post("/api/create", json=asked)
        yield client.post("/api/create", json={"model": other, "from": name, **texts})
        yield client.post("/api/copy", json={"source": name, "destination": other})
        yield client.request("DELETE", "/api/delete", json={"model": other})


@pytest.mark.timeout(170)
def test_whenever_a_server_is_killed_the_store_is_whole(
    start_server: Callable[..., Any], tiny_model: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    data = tiny_model.read_bytes()
    for _ in range(ROUNDS):
        server = start_server()
        killer = Killer(
            server.process, chance.randint(1, MOST_ANSWERS), chance.uniform(0, LONGEST_S)
        )
        workers = [
            Changes(server.url, data, chance.randrange(1 << 32), killer.answered) for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in (*workers, killer):
            worker.join()
        assert server.process.wait(30) == -signal.SIGKILL
        assert [text for worker in workers for text in worker.failures] == [], seed
        check(Path(server.environment["OLLAMA_MODELS"]))

    server = start_server()
    root = Path(server.environment["OLLAMA_MODELS"])
    rows = httpx.get(f"{server.url}/api/tags").json()["models"]
    names = {f"registry.ollama.ai/library/{row['name'].replace(':', '/')}" for row in rows}
    assert names == check(root), seed
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    assert server.stop() == 0
    server = start_server()  # and prunes
    assert {path.name for path in (root / "blobs").iterdir()} == set(_needed(root)), seed


def _needed(root: Path) -> Iterator[str]:
    for path in (root / "manifests").rglob("latest"):
        manifest = json.loads(path.read_bytes())
        for layer in [*manifest["layers"], manifest["config"]]:
            yield layer["digest"].replace(":", "-")


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A model in F16 that takes a moment to quantize."""
    sizes = {"width": 512, "feed_forward": 2048, "layers": 4}
    return write_tiny_model(tmp_path / "half.gguf", quantization="F16", **sizes)


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Path]:
    """A directory of safetensors that takes a moment to convert, by its many layers."""
    files = {path.name: path for path in LLAMA.iterdir()}
    files["model.safetensors"] = with_layers(LLAMA / "model.safetensors", tmp_path / "m", LAYERS)
    config = json.loads(files["config.json"].read_bytes()) | {"num_hidden_layers": LAYERS}
    files["config.json"] = tmp_path / "config.json"
    files["config.json"].write_text(json.dumps(config))
    return files


def with_layers(source: Path, target: Path, count: int) -> Path:
    """The model with its first layer so many times."""
    raw = source.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        start, end = tensor["data_offsets"]
        content = (tensor, raw[8 + length + start : 8 + length + end])
        if ".layers." not in name:
            tensors[name] = content
        elif ".layers.0." in name:
            for number in range(count):
                tensors[name.replace(".layers.0.", f".layers.{number}.")] = content
    written, data = {}, bytearray()
    for name, (tensor, content) in tensors.items():
        written[name] = tensor | {"data_offsets": [len(data), len(data) + len(content)]}
        data += content
    head = json.dumps(written).encode()
    target.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return target


@pytest.mark.timeout(170)
@pytest.mark.engine
@pytest.mark.parametrize("word", ["quantizing", "converting"])
def test_whenever_a_server_is_killed_while_it_makes_a_model_nothing_of_that_is_seen(
    start_server: Callable[..., Any], half: Path, published: dict[str, Path], word: str
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    files = {"half.gguf": half} if word == "quantizing" else published
    asked = {"model": "made", "quantize": "q4_K_M" if word == "quantizing" else ""}
    asked["files"] = {name: digest_of(path.read_bytes()) for name, path in files.items()}
    root = Path()
    for _ in range(3):
        server = start_server()
        root = Path(server.environment["OLLAMA_MODELS"])
        for path in files.values():
            data = path.read_bytes()
            httpx.post(f"{server.url}/api/blobs/{digest_of(data)}", content=data)
        killing = threading.Timer(chance.uniform(0, 2), server.process.kill)
        family = []
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", f"{server.url}/api/create", json=asked, timeout=60) as answer,
        ):
            for line in answer.iter_lines():
                if word in line and not killing.is_alive():
                    killing.start()
                with contextlib.suppress(psutil.Error):
                    family += server.process.children(recursive=True)
        killing.join()
        assert server.process.wait(30) == -signal.SIGKILL
        assert psutil.wait_procs(family, timeout=10)[1] == [], seed
        assert check(root) <= {"registry.ollama.ai/library/made/latest"}, seed

    server = start_server()
    answer = httpx.post(f"{server.url}/api/create", json=asked, timeout=120)
    assert json.loads(answer.text.splitlines()[-1]) == {"status": "success"}
    assert check(root) == {"registry.ollama.ai/library/made/latest"}
    assert server.stop() == 0
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    start_server()  # and prunes
    assert {path.name for path in (root / "blobs").iterdir()} == set(_needed(root)), seed


def test_two_servers_change_one_store(start_server: Callable[..., Any], tiny_model: Path) -> None:
    servers = [start_server(), start_server()]
    data = tiny_model.read_bytes()
    answers: list[None] = []
    workers = [
        Changes(server.url, data, number, lambda: answers.append(None), turns=10)
        for number, server in enumerate(servers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 2 * 10 * 5
    assert [text for worker in workers for text in worker.failures] == []
    found = check(Path(servers[0].environment["OLLAMA_MODELS"]))
    for server in servers:
        rows = httpx.get(f"{server.url}/api/tags").json()["models"]
        assert len(rows) == len(found)


def fill(filler: Path) -> None:
    """Take what is left of the disk."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


@pytest.mark.parametrize("small_disk", ["8m"], indirect=True)
@pytest.mark.engine
def test_a_disk_that_fills_up_while_quantizing_is_an_error_and_nothing_stays(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = tmp_path / "begin"  # the library is to write when the disk is full, not before
    os.mkfifo(begin)
    command = quantize._command
    monkeypatch.setattr(
        quantize,
        "_command",
        lambda *of: ["sh", "-c", 'read -r _ <"$0"; exec "$@"', str(begin), *command(*of)],
    )
    store = Store(small_disk / "models")
    sizes = {"width": 256, "feed_forward": 512, "layers": 1, "vocab": 1024}
    half = write_tiny_model(tmp_path / "half.gguf", quantization="F16", **sizes)
    data = half.read_bytes()
    with store.open_blob(digest_of(data)) as blob:
        blob.write(data)
        blob.commit()
    asked = CreateRequest(model="m", files={"half.gguf": digest_of(data)}, quantize="q8_0")
    work = create_model(store, asked)
    while not next(work)["status"].startswith("quantizing"):
        pass  # there was room when it began
    fill(small_disk / "filler")
    begin.write_text("now\n")
    with pytest.raises(StorageFailed, match="no space left on the disk of the model store"):
        list(work)
    assert [path.name for path in (store.root / "blobs").iterdir()] == [
        digest_of(data).replace(":", "-")
    ]
    assert list_models(store) == []


@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
def test_a_disk_that_is_full_refuses_what_comes_and_serves_what_is_there(
    start_server: Callable[..., Any], small_disk: Path, tiny_model: Path
) -> None:
    server = start_server(OLLAMA_MODELS=str(small_disk / "models"))
    data = tiny_model.read_bytes()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.post(f"/api/blobs/{digest_of(data)}", content=data).raise_for_status()
        asked = {"model": "m", "files": {"m.gguf": digest_of(data)}}
        client.post("/api/create", json=asked).raise_for_status()
        before = check(small_disk / "models")
        large = bytes(8 << 20)
        answer = client.post(f"/api/blobs/{digest_of(large)}", content=large)
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("no space left on the disk")
        filler = small_disk / "filler"
        fill(filler)
        answer = client.post("/api/create", json={"model": "m", "from": "m", "system": "x" * 9999})
        assert "no space left on the disk" in answer.text
        assert check(small_disk / "models") == before
        assert client.post("/api/show", json={"model": "m"}).status_code == 200
        filler.unlink()
        answer = client.post("/api/create", json={"model": "m", "from": "m", "system": "x" * 9999})
        assert json.loads(answer.text.splitlines()[-1]) == {"status": "success"}
