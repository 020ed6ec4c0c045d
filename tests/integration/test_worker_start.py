"""Starts of real worker processes: that work, that go wrong, that are given up."""

import asyncio
import contextlib
import gc
import os
import resource
import sys

import pytest
import uvloop

from ollama_async.core import errors
from ollama_async.core.conversation import Usage
from ollama_async.queue.backend import Finish
from ollama_async.workers import messages
from tests.integration.worker_harness import (
    MISBEHAVING,
    Events,
    is_alive,
    new_client,
    start,
    submit,
)
from tests.unit.workers.harness import DEADLINE_S

pytestmark = pytest.mark.usefixtures("warm_uvloop")


async def test_a_worker_starts_answers_and_stops(make_client, events):
    client = make_client()
    ready = await start(client)
    assert ready.slots == 2
    assert ready.warnings == ["a warning"]
    assert is_alive(client.pid)
    submit(client, 1, "answer")
    assert await events.until("done") == Finish("stop", Usage(1, 0, 2, 3, 4), [])
    assert events.all[:2] == [("started", 1), ("text", (1, "hello"))]
    pid = client.pid
    await client.stop(DEADLINE_S)
    await client.wait_gone()
    assert not is_alive(pid)
    assert "lost" not in events.kinds()


def test_all_this_works_on_uvloop_too():
    async def main():
        events = Events()
        client = new_client(events, module=MISBEHAVING)
        await start(client)
        submit(client, 1, "answer")
        await events.until("done")
        submit(client, 2, "kill")
        assert "signal 9" in await events.until("lost")
        with pytest.raises(errors.LoadFailed, match="tensor 'x' is missing"):
            await start(new_client(events, module=MISBEHAVING), "exit early")

    uvloop.run(main())


@pytest.mark.parametrize(
    ("act", "text"),
    [
        ("raise", r"exit status 1: ValueError: the file says no$"),
        ("exit early", "terminated: exit status 3: error: tensor 'x' is missing"),
        ("wrong protocol", f"the worker uses protocol 99, this server {messages.PROTOCOL}"),
        ("wrong generation", "a worker of generation 8"),
        ("out of turn", "unexpected message: Ready"),
        ("index", "cannot be decoded: write index 18446744073709551615"),
        ("garbage", "cannot be decoded: no message"),
        ("exit after refusing", "^the file is damaged$"),
    ],
)
async def test_a_failed_start_has_its_reason(make_client, events, act, text):
    client = make_client()
    with pytest.raises(errors.LoadFailed, match=text):
        await start(client, act)
    assert not is_alive(client.pid)
    assert events.all == []
    await client.stop(1)  # nothing left to do


async def test_a_refusal_keeps_its_kind_and_ends_the_worker(make_client):
    client = make_client()
    with pytest.raises(errors.BadRequest, match=r"^no such quantization$"):
        await start(client, "refuse")
    assert not is_alive(client.pid)


async def test_a_worker_that_never_sends_is_given_up_and_killed(make_client):
    client = make_client(load_timeout_s=0.3)
    with pytest.raises(errors.LoadFailed, match=r"timed out .* no progress for 0.3 s"):
        await start(client, "silent")
    assert not is_alive(client.pid)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["slow", "slow but printing"])
async def test_a_load_may_take_long_while_it_makes_progress(make_client, act):
    client = make_client(load_timeout_s=2.0)
    begin = asyncio.get_running_loop().time()
    await start(client, act)
    assert asyncio.get_running_loop().time() - begin > 2.0


async def test_cancelling_a_start_kills_and_reaps(make_client):
    client = make_client()
    starting = asyncio.create_task(start(client, "silent"))
    await asyncio.sleep(0)  # it spawns at once
    assert is_alive(client.pid)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_alive(client.pid)
    await client.wait_gone()


async def test_stopping_a_start_fails_it(make_client):
    client = make_client()
    starting = asyncio.create_task(start(client, "silent"))
    await asyncio.sleep(0)  # it spawns at once
    assert is_alive(client.pid)
    await client.stop(0)
    with pytest.raises(errors.LoadFailed, match="stopped"):
        await starting


async def test_a_process_that_cannot_be_made_is_a_failed_load(make_client, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    client = make_client()
    with pytest.raises(errors.LoadFailed, match=r"error starting model worker: .*No such file"):
        await start(client)
    assert client.pid == 0
    with pytest.raises(errors.WorkerDied):
        submit(client, 1, "answer")
    await client.stop(1)


@pytest.mark.parametrize("spare", range(12))
async def test_too_few_descriptors_are_a_failed_load_and_none_of_them_is_lost(make_client, spare):
    client = make_client()
    with descriptors_left(spare), pytest.raises(errors.LoadFailed, match="Too many open files"):
        await start(client)
    await client.stop(1)


@contextlib.contextmanager
def descriptors_left(count):
    """This process can open only so many more files; afterwards not one of them may be open."""
    held = [os.open(os.devnull, os.O_RDONLY)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())
        yield
        gc.collect()
        held += [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


async def test_a_module_that_does_not_exist_is_named(events):
    client = new_client(events, module="no_such_module")
    with pytest.raises(errors.LoadFailed, match="No module named no_such_module"):
        await start(client)
