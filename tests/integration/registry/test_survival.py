"""Pulls in a real server that is killed, stopped, or has no room left."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
from pathlib import Path

import aiohttp
import pytest

from ollama_async.registry.pull import open_pulls
from ollama_async.registry.transfer_policy import TransferPolicy
from ollama_async.store.partial_files import SUFFIX
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models

pytestmark = pytest.mark.slow
DEADLINE_S = 30.0
LARGE = random.Random(4).randbytes(12 << 20)


async def in_executor(call, *args, **variables):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: call(*args, **variables))


async def lines(server, name):
    """The NDJSON lines of a pull, as far as they come."""
    asked = {"model": name, "insecure": True}
    with contextlib.suppress(aiohttp.ClientError):
        async with (
            asyncio.timeout(DEADLINE_S),
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/api/pull", json=asked) as answer,
        ):
            async for line in answer.content:
                yield json.loads(line)


def check_store(store, digest):
    """Every published blob is what its name says; every named model has all of its blobs."""
    for path in (store.root / "blobs").iterdir():
        if path.name.startswith("sha256-") and not path.name.endswith(SUFFIX):
            assert digest(path.read_bytes()).replace(":", "-") == path.name
    for path in (store.root / "manifests").rglob("latest"):
        manifest = json.loads(path.read_bytes())
        for layer in [*manifest["layers"], manifest["config"]]:
            assert store.has_blob(layer["digest"])


UNDER_WAY = 3 << 20
"""Bytes between the registry and the disk, when the server is slow to take them."""


@pytest.mark.timeout(170)
async def test_whenever_it_is_killed_the_store_is_whole_and_little_is_fetched_twice(
    registry, proxy, start_server, digest
):
    registry.push("survival/killed", LARGE, template="{{ .Prompt }}", license="free")
    name = f"{proxy.host}/survival/killed"
    chance = random.Random(os.urandom(8).hex())
    points = sorted(chance.sample(range(len(LARGE)), 3))
    kill_at = [("bytes", point) for point in points]
    kill_at += [("status", text) for text in ("verifying sha256 digest", "writing manifest")]
    for kind, point in kill_at:
        server = await in_executor(start_server)
        async for line in lines(server, name):
            is_far = (
                line.get("total") == len(LARGE) and line.get("completed", 0) >= point
                if kind == "bytes"
                else line["status"] == point
            )
            if is_far:
                server.process.kill()
                break
        server.process.kill()
        assert await in_executor(server.process.wait) == -signal.SIGKILL
        check_store(Store(Path(server.environment["OLLAMA_MODELS"])), digest)

    server = await in_executor(start_server)
    seen = [line async for line in lines(server, name)]
    assert seen[-1] == {"status": "success"}, kill_at
    store = Store(Path(server.environment["OLLAMA_MODELS"]))
    check_store(store, digest)
    assert store.layout.blobs.path(digest(LARGE)).read_bytes() == LARGE
    assert not list((store.root / "blobs").glob(f"*{SUFFIX}"))
    # Lost is what was under way at each kill: sockets' buffers and unwritten pieces. Without going
    # on where it stopped, each kill would cost all that had come.
    assert proxy.sent < len(LARGE) + len(kill_at) * UNDER_WAY, kill_at


async def test_a_stopping_server_does_not_wait_for_a_pull(registry, proxy, start_server):
    registry.push("survival/stopped", LARGE)
    held = asyncio.Event()
    reached = asyncio.Event()

    async def spoil(offset, piece):
        if offset > 1 << 20:
            reached.set()
            await held.wait()
        return piece

    proxy.spoil = spoil
    server = await in_executor(start_server)

    async def ask():
        return [line async for line in lines(server, f"{proxy.host}/survival/stopped")]

    asking = asyncio.create_task(ask())
    async with asyncio.timeout(DEADLINE_S):
        await reached.wait()
        assert await in_executor(server.stop) == 0
        seen = await asking
    held.set()
    assert {"status": "success"} not in seen


@pytest.mark.parametrize("small_disk", ["80m"], indirect=True)
async def test_a_full_disk_is_an_error_and_the_next_pull_resumes(
    registry, proxy, start_server, small_disk, digest
):
    registry.push("survival/full", LARGE)
    filler = small_disk / "filler"
    name = f"{proxy.host}/survival/full"

    async def spoil(offset, piece):
        if offset > 4 << 20 and not filler.exists():
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
        return piece

    proxy.spoil = spoil
    server = await in_executor(start_server, OLLAMA_MODELS=str(small_disk / "models"))
    seen = [line async for line in lines(server, name)]
    assert seen[-1]["error"].startswith("no space left on the disk of the model store")
    assert server.process.is_running()

    filler.unlink()
    proxy.spoil = None
    seen = [line async for line in lines(server, name)]
    assert seen[-1] == {"status": "success"}
    store = Store(small_disk / "models")
    assert store.layout.blobs.path(digest(LARGE)).read_bytes() == LARGE
    assert proxy.sent < 1.6 * len(LARGE)


@pytest.mark.parametrize("small_disk", ["80m"], indirect=True)
async def test_a_disk_that_is_too_small_is_seen_before_anything_is_fetched(
    registry, proxy, start_server, small_disk
):
    registry.push("survival/large", bytes(20 << 20))
    server = await in_executor(start_server, OLLAMA_MODELS=str(small_disk / "models"))
    seen = [line async for line in lines(server, f"{proxy.host}/survival/large")]
    assert seen[0] == {"status": "pulling manifest"}
    assert seen[1]["error"].startswith("no space left on the disk")
    assert proxy.sent == 0


async def test_the_models_of_the_package_come_from_the_package(
    store, tiny_model, tmp_path, environment
):
    folder = tmp_path / "shipped"
    folder.mkdir()
    shutil.copy(tiny_model, folder / "demo.gguf")
    key = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    async with (
        asyncio.timeout(DEADLINE_S),
        open_pulls(store, policy=TransferPolicy(), key_path=key, shipped_folder=folder) as pulls,
    ):
        seen = [status async for status in pulls.follow("Demo", is_insecure=False)]
    assert [line["status"] for line in seen] == ["pulling manifest", "writing manifest", "success"]
    assert [model.name for model in list_models(store)] == ["demo:latest"]
