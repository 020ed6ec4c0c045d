"""The store over HTTP: blobs, create, tags, delete; and what is loaded, and health."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import math
import threading

import psutil
import pytest

from ollama_async.create import quantize
from ollama_async.gateway import body
from ollama_async.queue.backend import LoadedModel, Target

DEADLINE_S = 10.0
LEVELS_TEXT = "unsupported quantization type Q4_K_XL - supported types are F32, F16, BF16, Q8_0"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def uploaded(session, url, tiny_model) -> str:
    """The digest of a sound GGUF that is in the store."""
    data = tiny_model.read_bytes()
    with tiny_model.open("rb") as file:
        async with session.post(f"{url}/api/blobs/{digest_of(data)}", data=file) as response:
            assert response.status == 201
    return digest_of(data)


def upload_head(host: str, length: int) -> bytes:
    path = f"/api/blobs/{digest_of(b'x')}"
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n".encode()


def leftovers(store) -> list[str]:
    folder = store.root / "blobs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # threads and sockets have no event to wait for
            await asyncio.sleep(0.001)


async def test_a_blob_is_created_once_and_can_be_found(session, url):
    digest = digest_of(b"hello")
    blob = f"{url}/api/blobs/{digest}"

    async with session.head(blob) as before, session.post(blob, data=b"hello") as first:
        assert (before.status, first.status) == (404, 201)
    async with session.head(blob) as after, session.post(blob, data=b"") as second:
        assert (after.status, second.status) == (200, 200)
    async with session.head(blob.replace("sha256:", "sha256-")) as dashed:
        assert dashed.status == 200


async def test_a_large_chunked_upload_arrives_whole(session, url, store):
    data = bytes(range(256)) * 16_384  # 4 MiB: several writes

    async def chunks():
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    async with session.post(f"{url}/api/blobs/{digest_of(data)}", data=chunks()) as response:
        assert response.status == 201

    assert store.layout.blobs.path(digest_of(data)).read_bytes() == data


async def test_an_upload_with_a_wrong_digest_leaves_nothing(session, url, store):
    expected, got = digest_of(b"hello"), digest_of(b"olleh")

    async with session.post(f"{url}/api/blobs/{expected}", data=b"olleh") as response:
        text = (await response.json())["error"]

    assert response.status == 400
    assert text == f'digest mismatch, expected "{expected}", got "{got}"'
    assert leftovers(store) == []


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_an_invalid_digest_is_refused(session, url, method):
    async with session.request(method, f"{url}/api/blobs/sha256:..%2F..%2Fetc") as response:
        assert response.status == 400
        if method == "POST":
            assert await response.json() == {"error": "invalid digest format"}


async def test_an_upload_of_a_disconnected_client_leaves_nothing(url, store):
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(upload_head(host, 9_999_999) + b"x" * 100_000)
    await until(lambda: leftovers(store))

    writer.transport.abort()

    await until(lambda: not leftovers(store))


async def test_a_stalled_upload_is_refused(url, store, monkeypatch):
    monkeypatch.setattr(body, "GRACE_S", 0.05)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(upload_head(host, 99) + b"x")
    answer = await asyncio.wait_for(reader.readuntil(b"}"), DEADLINE_S)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert leftovers(store) == []


async def test_create_streams_statuses_and_the_model_is_listed(session, url, uploaded):
    asked = {"model": "mine", "files": {"tiny.gguf": uploaded}, "system": "be brief"}

    async with session.post(f"{url}/api/create", json=asked) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert lines[0] == {"status": "parsing GGUF"}
    assert lines[-1] == {"status": "success"}
    async with session.get(f"{url}/api/tags") as response:
        models = (await response.json())["models"]
    row = next(model for model in models if model["name"] == "mine:latest")
    assert list(row)[:6] == ["name", "model", "modified_at", "size", "digest", "details"]
    assert len(row["digest"]) == 64
    assert row["details"]["format"] == "gguf"


async def test_create_without_streaming_is_the_last_status(session, url, uploaded):
    asked = {"model": "mine", "files": {"tiny.gguf": uploaded}, "stream": False}

    async with session.post(f"{url}/api/create", json=asked) as response:
        assert response.headers["Content-Type"] == "application/json"
        assert await response.read() == b'{"status":"success"}'


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"model": "a b", "from": "m"}, 400, "invalid model name"),
        ({"files": {}}, 400, "unknown type"),
        ({"from": "x", "quantize": "q4_k_xl"}, 400, LEVELS_TEXT),
        ({"from": "x", "parameters": {"seed": "a"}}, 400, 'option "seed" must be of type integer'),
        ({"from": "x", "adapters": {"a": "sha256:1"}}, 400, "invalid digest format"),
        ({"from": "x", "requires": "soon"}, 400, "requires must be a valid semver (e.g. 0.14.0)"),
    ],
)
async def test_create_refuses_before_it_begins(session, url, stream, fields, status, text):
    asked = {"model": "mine", "stream": stream} | fields
    async with session.post(f"{url}/api/create", json=asked) as response:
        assert response.status == status
        assert (await response.json())["error"].startswith(text)


async def test_an_error_during_create_is_the_streams_last_line(session, url):
    data = b"GGUF but nothing more"
    async with session.post(f"{url}/api/blobs/{digest_of(data)}", data=data):
        pass
    asked = {"model": "mine", "files": {"x.gguf": digest_of(data)}}

    async with session.post(f"{url}/api/create", json=asked) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]

    assert response.status == 200
    assert list(lines[-1]) == ["error"]


async def test_a_disconnected_client_ends_create(url, monkeypatch):
    started, release, closed = threading.Event(), threading.Event(), threading.Event()

    def steps(_store, _request, *, reads_files):
        assert not reads_files
        try:
            yield {"status": "one"}
            started.set()
            release.wait(DEADLINE_S)
            yield {"status": "two"}
            yield {"status": "never drawn"}
        finally:
            closed.set()

    monkeypatch.setattr("ollama_async.gateway.handlers.models.create_model", steps)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    asked = json.dumps({"model": "mine", "from": "m"})
    head = f"POST /api/create HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(asked)}\r\n\r\n"
    writer.write((head + asked).encode())
    await reader.readuntil(b"one")
    await until(started.is_set)

    writer.transport.abort()
    assert not closed.is_set()
    release.set()

    await until(closed.is_set)


async def create(session, url, fields, headers=None):
    """Status, and the last line."""
    async with session.post(f"{url}/api/create", json=fields, headers=headers) as response:
        return response.status, json.loads((await response.read()).splitlines()[-1])


@pytest.mark.parametrize("stream", [True, False])
async def test_create_accepts_the_fields_of_old_clients(session, url, uploaded, store, stream):
    asked = {"name": "old", "modelfile": f"FROM @{uploaded}\nSYSTEM be brief", "stream": stream}
    assert await create(session, url, asked) == (200, {"status": "success"})
    assert store.find("old").system == "be brief"


async def test_only_a_client_with_the_key_may_name_files(session, url, tmp_path, tiny_model):
    (tmp_path / "Modelfile").write_text(f"FROM {tiny_model}\n")
    for named in (
        {"path": str(tmp_path / "Modelfile")},
        {"modelfile": f"FROM {tiny_model}"},
        {"files": {"m.gguf": str(tiny_model)}},
        {"from": "demo", "adapters": {"a.gguf": str(tiny_model)}},
        {"from": "demo", "draft_files": {"d.gguf": str(tiny_model)}},
    ):
        status, answer = await create(session, url, {"model": "m", **named})
        assert status == 403
        assert "the server's own user" in answer["error"]


@pytest.mark.slow
async def test_a_missing_base_is_pulled(session, url):
    """From nowhere: what is asked is a port that nobody listens on."""
    asked = {"model": "m", "from": "127.0.0.1:9/x/nosuch"}
    async with session.post(f"{url}/api/create", json=asked) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1]["error"].startswith("pull model manifest: ")
    status, answer = await create(session, url, asked | {"stream": False})
    assert (status, answer) == (500, lines[-1])


async def test_a_base_of_the_package_needs_no_pull(session, url, store):
    async with session.post(
        f"{url}/api/create", json={"model": "m", "from": "demo-embed", "system": "x"}
    ) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert [line for line in lines if line == {"status": "success"}] == [lines[-1]]
    assert store.find("m").details.parent_model == "demo-embed:latest"


@pytest.mark.slow
async def test_a_disconnected_client_ends_quantizing(url, uploaded, store, tmp_path, monkeypatch):
    program = "import os, sys; open(sys.argv[4] + '.pid', 'w').write(f'{os.getpid()}'); "
    (tmp_path / "played.py").write_text(f"{program} print('tensor a', flush=True); os.read(0, 1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(quantize, "MODULE", "played")
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    asked = json.dumps({"model": "m", "files": {"x.gguf": uploaded}, "quantize": "q8_0"})
    head = f"POST /api/create HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(asked)}\r\n\r\n"
    writer.write((head + asked).encode())
    await reader.readuntil(b"quantizing F32 model to Q8_0")
    await until(lambda: list(store.root.rglob("*.pid")))
    (note,) = store.root.rglob("*.pid")
    await until(note.read_text)

    writer.transport.abort()

    await until(lambda: not psutil.pid_exists(int(note.read_text())))
    await until(lambda: leftovers(store) == [note.name, f"sha256-{uploaded[7:]}"])


@pytest.mark.parametrize(
    "path", ["../../victim", "a/../../../../victim", "x/..", "a/b/c:../../victim"]
)
async def test_no_name_leads_out_of_the_store(session, url, uploaded, tmp_path, path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    sound = {"tiny.gguf": uploaded}
    assert (await create(session, url, {"model": "sound", "files": sound}))[0] == 200
    before = {each for each in tmp_path.rglob("*") if "models" not in each.parts}
    for where, fields in (
        ("create", {"model": path, "files": sound}),
        ("create", {"model": "m", "from": path}),
        ("create", {"model": "m", "modelfile": f"FROM {path}"}),
        ("create", {"model": "m", "files": {path: uploaded}}),
        ("create", {"model": "m", "files": {"x.gguf": f"sha256:{path}"}}),
        ("copy", {"source": "sound", "destination": path}),
        ("copy", {"source": path, "destination": "m"}),
        ("show", {"model": path}),
        ("pull", {"model": path}),
    ):
        async with session.post(f"{url}/api/{where}", json=fields) as response:
            assert response.status in {400, 403, 404}, (where, fields)
    async with session.delete(f"{url}/api/delete", json={"model": path}) as response:
        assert response.status in {400, 404}
    for digest in (f"sha256:{path}", f"..%2F..%2F{path}", f"sha256-{'0' * 60}%2F..%2F"):
        async with session.post(f"{url}/api/blobs/{digest}", data=b"x") as response:
            assert response.status in {400, 404, 405}
    assert {each for each in tmp_path.rglob("*") if "models" not in each.parts} == before
    assert victim.read_text() == "precious"


async def test_delete_removes_a_model_once(session, url, uploaded):
    asked = {"model": "mine", "files": {"tiny.gguf": uploaded}, "stream": False}
    async with session.post(f"{url}/api/create", json=asked):
        pass

    async with session.delete(f"{url}/api/delete", json={"name": "Mine"}) as first:
        assert (first.status, await first.read()) == (200, b"")
    async with session.delete(f"{url}/api/delete", json={"model": "mine"}) as second:
        assert (second.status, await second.json()) == (404, {"error": "model 'mine' not found"})


@pytest.mark.parametrize(
    ("fields", "text"), [({}, "model is required"), ({"model": "a b"}, 'name "a b" is invalid')]
)
async def test_delete_requires_a_name(session, url, fields, text):
    async with session.delete(f"{url}/api/delete", json=fields) as response:
        assert (response.status, await response.json()) == (400, {"error": text})


def loaded(name: str, expires_at: float) -> LoadedModel:
    target = Target(
        key=name,
        name=name,
        digest="ab" * 32,
        engine="llama_cpp",
        path="",
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=0,
        details={"format": "gguf", "family": "llama", "families": None, "parameter_size": "1.2B"},
    )
    return LoadedModel(
        target=target,
        size=100,
        size_vram=40,
        num_ctx=4096,
        slots=4,
        running=0,
        busy_slots=0,
        cache_used=0,
        expires_at=expires_at,
    )


async def test_ps_lists_loaded_models_the_latest_expiry_first(session, url, backend):
    backend.loaded = [loaded("a:latest", 1_800_000_000.0), loaded("b:latest", math.inf)]

    async with session.get(f"{url}/api/ps") as response:
        models = (await response.json())["models"]

    assert [model["name"] for model in models] == ["b:latest", "a:latest"]
    assert models[1].pop("expires_at").startswith("2027-01-15T")
    assert models[1] == {
        "name": "a:latest",
        "model": "a:latest",
        "size": 100,
        "digest": "ab" * 32,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": None,
            "parameter_size": "1.2B",
            "quantization_level": "",
        },
        "size_vram": 40,
        "context_length": 4096,
    }


async def test_health_is_503_while_the_server_drains(session, url, dependencies):
    async with session.get(f"{url}/healthz") as response:
        assert (response.status, (await response.json())["status"]) == (200, "ok")

    dependencies.lifecycle.is_draining = True

    async with session.get(f"{url}/healthz") as response:
        assert (response.status, (await response.json())["status"]) == (503, "draining")


@pytest.mark.slow
async def test_changes_waiting_for_the_store_lock_do_not_delay_the_list(
    session, url, store, uploaded
):
    body = {"model": "mine", "files": {"m.gguf": uploaded}, "stream": False}
    threads = threading.active_count()

    async def create() -> int:
        async with session.post(f"{url}/api/create", json=body) as response:
            return response.status

    with (store.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = [asyncio.create_task(create()) for _ in range(40)]
        await until(lambda: threading.active_count() >= threads + 4)
        for _ in range(50):  # the first ones may be faster than the creates
            async with asyncio.timeout(DEADLINE_S), session.get(f"{url}/api/tags") as listed:
                assert listed.status == 200
        assert not any(task.done() for task in waiting)

    assert set(await asyncio.gather(*waiting)) == {200}
