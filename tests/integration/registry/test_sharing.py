"""Several who want the same: askers of one server, servers on one store; who dies and goes on."""

import asyncio
import contextlib
import json
import os
import random
import signal
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from ollama_async.core.errors import Busy
from ollama_async.registry import transfers
from ollama_async.store.partial_files import SUFFIX, remove_stale
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models

pytestmark = pytest.mark.slow
DEADLINE_S = 30.0
CHUNK = 256 << 10
MODEL = random.Random(2).randbytes(4 * CHUNK)
LARGE = random.Random(3).randbytes(24 << 20)


class Gate:
    """Lets ``bytes_before`` bytes of a blob pass, then holds everybody until it is opened."""

    def __init__(self, bytes_before):
        self._left = bytes_before
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def spoil(self, _offset, piece):
        self._left -= len(piece)
        if self._left < 0:
            self.reached.set()
            await self._open.wait()
        return piece

    def open(self):
        self._open.set()


@pytest.fixture
def gate(proxy):
    gate = Gate(2 * CHUNK)
    proxy.spoil = gate.spoil
    yield gate
    gate.open()


@pytest.fixture
def name(registry, proxy, request):
    repository = f"sharing/{request.node.name[5:80]}"
    registry.push(repository, MODEL)
    return f"{proxy.host}/{repository}"


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # sockets and processes have no event to wait for
            await asyncio.sleep(0.005)


# ----------------------------------------------------------------- one server


async def test_who_asks_for_the_same_shares_one_download(name, proxy, pulls, gate):
    async def ask():
        return [status async for status in pulls.follow(name, is_insecure=True)]

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        first = group.create_task(ask())
        await gate.reached.wait()
        late = group.create_task(ask())
        upper = group.create_task(ask())
        await asyncio.sleep(0)
        gate.open()

    for task in (first, late, upper):
        statuses = task.result()
        assert statuses[0] == {"status": "pulling manifest"}
        assert statuses[-1] == {"status": "success"}
    assert len(proxy.asked("/manifests/")) == 1
    assert proxy.sent < len(MODEL) + 1000


async def test_a_pull_continues_while_it_has_followers(name, proxy, pulls, gate, store):
    first = pulls.follow(name, is_insecure=True)
    second = pulls.follow(name, is_insecure=True)
    async with asyncio.timeout(DEADLINE_S), aclosing(first), aclosing(second):
        assert await anext(first) == await anext(second) == {"status": "pulling manifest"}
        await gate.reached.wait()
        await first.aclose()
        assert (await anext(second))["total"] == len(MODEL)  # it goes on
        await second.aclose()
    # The connections are closed, the file is there and free, and the next one goes on.
    assert [path.name[-9:] for path in (store.root / "blobs").iterdir()] == [SUFFIX]
    before = proxy.sent
    assert before > 0
    gate.open()
    statuses = [status async for status in pulls.follow(name, is_insecure=True)]
    assert statuses[-1] == {"status": "success"}


async def test_what_is_there_is_not_fetched_again(name, registry, proxy, pull, digest, store):
    await pull(name)
    sent = proxy.sent
    registry.push(name.partition("/")[2], MODEL, system="another")

    statuses = await pull(name)

    assert proxy.sent - sent == len("another")
    size = len(MODEL)
    line = {"status": f"pulling {digest(MODEL)[7:19]}", "digest": digest(MODEL)}
    assert line | {"total": size, "completed": size} in statuses
    assert [status["status"] for status in statuses[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]

    registry.push(name.partition("/")[2], b"something else")
    statuses = await pull(name)
    assert [status["status"] for status in statuses[-3:]] == [
        "writing manifest",
        "removing unused layers",
        "success",
    ]
    assert not store.has_blob(digest(MODEL))


async def test_a_blob_that_goes_away_meanwhile_is_fetched_after_all(
    name, registry, pull, digest, store, proxy
):
    repository = name.partition("/")[2]
    await pull(name)
    registry.push(repository, MODEL, license="more to fetch")

    async def fault(request):
        if digest(b"more to fetch") in request.path:
            store.layout.blobs.path(digest(MODEL)).unlink(missing_ok=True)

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}
    assert store.layout.blobs.path(digest(MODEL)).read_bytes() == MODEL


async def test_two_models_with_one_layer_fetch_it_once(registry, proxy, pulls, gate):
    registry.push("sharing/one", MODEL, system="one")
    registry.push("sharing/two", MODEL, system="two")

    async def ask(model):
        name = f"{proxy.host}/sharing/{model}"
        return [status async for status in pulls.follow(name, is_insecure=True)]

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        one = group.create_task(ask("one"))
        await gate.reached.wait()
        two = group.create_task(ask("two"))
        await until(lambda: len(proxy.asked("/manifests/")) == 2)
        gate.open()
    assert one.result()[-1] == two.result()[-1] == {"status": "success"}
    assert proxy.sent < len(MODEL) + 10_000


async def test_there_are_only_so_many_pulls_at_a_time(proxy, pulls, monkeypatch):
    monkeypatch.setattr(transfers, "MAX_TRANSFERS", 1)
    held = asyncio.Event()

    async def fault(_request):
        await held.wait()

    proxy.fault = fault
    first = pulls.follow(f"{proxy.host}/a/b", is_insecure=True)
    async with aclosing(first):
        await anext(first)
        with pytest.raises(Busy):
            await anext(pulls.follow(f"{proxy.host}/a/c", is_insecure=True))
    held.set()


async def test_old_partial_files_are_removed_unless_open(name, pulls, gate, store):
    statuses = pulls.follow(name, is_insecure=True)
    async with aclosing(statuses):
        await anext(statuses)
        await gate.reached.wait()
        (path,) = (store.root / "blobs").iterdir()
        os.utime(path, (1, 1))
        assert remove_stale(store.root / "blobs") == 0  # in use
    os.utime(path, (1, 1))
    assert remove_stale(store.root / "blobs") == 1
    assert list((store.root / "blobs").iterdir()) == []


async def test_an_hour_is_not_long_ago(name, pulls, gate, store):
    statuses = pulls.follow(name, is_insecure=True)
    async with aclosing(statuses):
        await anext(statuses)
        await gate.reached.wait()
    (path,) = (store.root / "blobs").iterdir()
    then = path.stat().st_mtime - 2 * 3600
    os.utime(path, (then, then))
    store.prune()
    assert path.exists()


# ----------------------------------------------------------------- several servers


async def lines(session, server, name):
    asked = {"model": name, "insecure": True}
    async with session.post(f"{server.url}/api/pull", json=asked) as answer:
        async for line in answer.content:
            yield json.loads(line)


def store_of(server):
    return Store(Path(server.environment["OLLAMA_MODELS"]))


async def in_executor(call, *args, **variables):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: call(*args, **variables))


async def test_a_server_that_is_killed_leaves_what_the_next_one_goes_on_with(
    registry, proxy, start_server, digest
):
    registry.push("sharing/killed", LARGE)
    name = f"{proxy.host}/sharing/killed"
    gate = Gate(16 << 20)
    proxy.spoil = gate.spoil
    server = await in_executor(start_server)
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(DEADLINE_S), aclosing(lines(session, server, name)) as seen:
            with contextlib.suppress(aiohttp.ClientError):
                async for line in seen:
                    if line.get("completed", 0) > 12 << 20:
                        server.process.kill()
        assert server.process.wait(DEADLINE_S) == -signal.SIGKILL
        gate.open()
        fetched = proxy.sent

        store = store_of(server)
        (partial,) = (store.root / "blobs").glob(f"*{SUFFIX}")
        assert partial.name.startswith(store.layout.blobs.path(digest(LARGE)).name)
        assert not any(registry.host in model.name for model in list_models(store))

        proxy.sent, proxy.spoil = 0, None
        server = await in_executor(start_server)
        async with asyncio.timeout(DEADLINE_S):
            seen = [line async for line in lines(session, server, name)]
    assert seen[-1] == {"status": "success"}
    assert store.layout.blobs.path(digest(LARGE)).read_bytes() == LARGE
    assert fetched >= 12 << 20
    assert proxy.sent <= 12 << 20  # at least half was there
    assert not partial.exists()


async def test_two_servers_on_one_store_fetch_a_blob_once(registry, proxy, start_server, tmp_path):
    registry.push("sharing/twice", LARGE)
    name = f"{proxy.host}/sharing/twice"
    gate = Gate(8 << 20)
    proxy.spoil = gate.spoil
    both = [await in_executor(start_server, OLLAMA_MODELS=str(tmp_path / "m")) for _ in range(2)]

    async def ask(server):
        return [line async for line in lines(session, server, name)]

    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(DEADLINE_S),
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(ask(server)) for server in both]
        await gate.reached.wait()
        await until(lambda: len(proxy.asked("/manifests/")) == 2)
        gate.open()
    for task in tasks:
        assert task.result()[-1] == {"status": "success"}
        progress = [
            line["completed"]
            for line in task.result()
            if line.get("total") == len(LARGE) and "completed" in line
        ]
        assert progress[-1] == len(LARGE)
    assert len(LARGE) <= proxy.sent < len(LARGE) * 1.05


async def test_a_client_that_leaves_stops_the_pull(registry, proxy, start_server):
    registry.push("sharing/left", LARGE)
    gate = Gate(4 << 20)
    proxy.spoil = gate.spoil
    server = await in_executor(start_server)
    async with aiohttp.ClientSession() as session:
        name = f"{proxy.host}/sharing/left"
        async with aclosing(lines(session, server, name)) as seen, asyncio.timeout(DEADLINE_S):
            await anext(seen)
            await gate.reached.wait()
    connections = server.process.net_connections
    port = int(proxy.host.partition(":")[2])
    await until(
        lambda: not [each for each in connections() if each.raddr and each.raddr[1] == port]
    )
    gate.open()
