"""Ends of worker processes: requested, forced, or by the parent's death; nothing is left."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys

import pytest

from ollama_async.workers.child.process_setup import ORPHANED
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.pipe import Channel
from ollama_async.workers.process import WorkerProcess
from tests.integration.worker_harness import (
    ENVIRON,
    HERE,
    MISBEHAVING,
    is_alive,
    start,
    submit,
)
from tests.unit.workers.harness import DEADLINE_S, plan


@pytest.mark.parametrize("act", ["ignore quit", "ignore everything"])
async def test_stop_ends_workers_that_ignore_it(make_client, events, act):
    client = make_client()
    await start(client, act)
    await asyncio.gather(client.stop(0.2), client.stop(0.2))
    assert not is_alive(client.pid)
    assert "lost" not in events.kinds()


@pytest.fixture
def immortal(monkeypatch):
    """No signal reaches a worker, as if a driver held it, until the block ends."""
    monkeypatch.setattr("ollama_async.workers.process.REAP_DEADLINE_S", 0.05)
    monkeypatch.setattr("ollama_async.workers.client.REAP_DEADLINE_S", 0.05)

    @contextlib.contextmanager
    def immortal(client):
        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "_signal", lambda *_: None)
            yield
        os.kill(client.pid, signal.SIGKILL)

    return immortal


async def test_a_worker_that_survives_sigkill_is_not_gone_before_it_is(client, immortal):
    with immortal(client):
        os.kill(client.pid, signal.SIGSTOP)
        await client.stop(0)
        assert not client.is_gone
    async with asyncio.timeout(DEADLINE_S):
        await client.wait_gone()
    assert client.is_gone


async def test_the_loss_of_a_worker_that_survives_sigkill_is_reported(
    make_client, events, immortal
):
    client = make_client(stall_timeout_s=0.1)
    await start(client)
    with immortal(client):
        submit(client, 1, "wait")
        assert "no message for 0.1 s" in await events.until("lost")
        assert not client.is_gone
    async with asyncio.timeout(DEADLINE_S):
        await client.wait_gone()
    assert events.kinds().count("lost") == 1


async def test_a_cancelled_stop_kills(make_client):
    client = make_client()
    await start(client, "ignore everything")
    stopping = asyncio.create_task(client.stop(DEADLINE_S))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    async with asyncio.timeout(DEADLINE_S):
        await client.wait_gone()
    assert not is_alive(client.pid)


async def test_a_grandchild_that_holds_stdout_neither_delays_the_end_nor_survives(client, events):
    submit(client, 1, "grandchild")
    _, grandchild = await events.until("text")
    assert is_alive(int(grandchild))
    os.kill(client.pid, signal.SIGTERM)
    await events.until("lost")
    await gone(int(grandchild))


async def gone(pid):
    """Wait until a process that is not our child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert await asyncio.to_thread(poll.poll, DEADLINE_S * 1000), f"{pid} still lives"
    finally:
        os.close(pidfd)


PARENT = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.integration.worker_harness import MISBEHAVING, Events, new_client, start, submit

async def main():
    events = Events()
    client = new_client(events, module=MISBEHAVING)
    await start(client)
    submit(client, 1, sys.argv[2])
    await events.until(sys.argv[3])
    print(client.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "sign"), [("wait", "started"), ("hold", "text")])
async def test_a_worker_dies_with_a_killed_parent(command, sign):
    argv = [sys.executable, "-c", PARENT, str(HERE.parent.parent), command, sign]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220  # two milliseconds
        child = int(await asyncio.to_thread(parent.stdout.readline))
        assert is_alive(child)
        parent.kill()
    await gone(child)


class ExitListener:
    """Of a bare transport."""

    def __init__(self):
        self.reason = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    def progressed(self):
        """Of no interest."""

    def exited(self, reason, *, has_aborted):
        assert not has_aborted
        self.reason.set_result(reason)

    def closed(self):
        self.gone.set()

    def received(self, messages):
        raise AssertionError(messages)

    def broken(self, reason):
        raise AssertionError(reason)


@contextlib.asynccontextmanager
async def process(engine="silent"):
    process, listener = WorkerProcess(MISBEHAVING), ExitListener()
    process.start(plan(engine=engine, environ=ENVIRON), generation=1, listener=listener)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield process, listener
    finally:
        process.kill()
        async with asyncio.timeout(DEADLINE_S):
            await listener.gone.wait()


async def test_the_lifeline_alone_ends_a_worker():
    async with process() as (worker, listener):
        worker._channel.lifeline.close()
        assert await listener.reason == f"exit status {ORPHANED}"


@pytest.fixture
def change_argv(monkeypatch):
    """Start workers with another argv than the channel makes."""
    make = Channel.argv

    def change_argv(change):
        monkeypatch.setattr(
            Channel,
            "argv",
            lambda channel, generation: change(make(channel, generation=generation)),
        )

    return change_argv


async def test_a_worker_whose_parent_is_another_ends_at_once(change_argv):
    def of_another(argv):
        argv[argv.index("--parent") + 1] = "1"
        return argv

    change_argv(of_another)
    async with process() as (_, listener):
        assert await listener.reason == f"exit status {ORPHANED}"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda argv: argv[2:], "missing required field `ring-in`"),
        (lambda argv: [*argv, "act", "silent"], "cannot read option 'act'"),
        (lambda argv: [*argv, "--parent", "1"], "cannot read option '--parent'"),
        (lambda argv: [argv[0], "x", *argv[2:]], "ring-in"),
        (lambda argv: [argv[0], "0", *argv[2:]], "is no memfd"),
    ],
)
async def test_an_invalid_argv_is_named(change_argv, change, text):
    change_argv(change)
    async with process() as (worker, listener):
        assert await listener.reason == "exit status 1"
        assert text in " ".join(worker.last_output())


async def test_an_option_without_a_value_is_named(monkeypatch):
    monkeypatch.setattr(LoadSpec, "to_argv", lambda _: ["--engine"])
    async with process() as (worker, listener):
        assert await listener.reason == "exit status 1"
        assert "cannot read option '--engine'" in " ".join(worker.last_output())


async def test_a_signal_after_the_end_hits_nobody():
    async with process("exit early") as (worker, listener):
        await listener.reason
        worker.kill()
        await worker.stop(1)
        assert listener.gone.is_set()
