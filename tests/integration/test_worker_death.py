"""Deaths of real worker processes: reported once, with a reason, after all they had sent."""

import asyncio
import re
import time

import pytest
import uvloop

from ollama_async.core import errors
from ollama_async.core.conversation import Tokenize
from ollama_async.workers.client import CRASH_TEXT
from tests.integration.worker_harness import (
    MISBEHAVING,
    Events,
    block_loop_until,
    is_alive,
    new_client,
    perform,
    start,
    submit,
)

pytestmark = pytest.mark.usefixtures("warm_uvloop")


async def test_a_crash_is_reported_once_with_its_signal_and_the_telling_line(client, events):
    submit(client, 1, "crash")
    reason = await events.until("lost")
    assert reason == f"{CRASH_TEXT}: killed by signal 11 (SIGSEGV): CUDA error: out of memory"
    assert events.kinds() == ["started", "lost"]
    with pytest.raises(errors.WorkerDied, match="unexpectedly stopped"):
        submit(client, 2, "answer")
    client.cancel(1)
    await client.wait_gone()
    await client.stop(1)
    assert events.kinds() == ["started", "lost"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (
            "assert",
            (
                r"killed by signal 6 \(SIGABRT\): "
                r'/build/llama-vocab.cpp:3422: GGML_ASSERT\(tokenizer && "not initialized"\) failed'
            ),
        ),
        ("raise", "exit status 1: ValueError: the weights are odd"),
        ("quietly SIGABRT", r"killed by signal 6 \(SIGABRT\)"),
        ("quietly SIGSEGV", r"killed by signal 11 \(SIGSEGV\)"),
        ("quietly SIGKILL", r"killed by signal 9 \(out of memory\?\)"),
    ],
)
async def test_a_death_is_reported_with_the_output_about_it_and_nothing_else(
    client, events, command, text
):
    submit(client, 1, command)
    reason = await events.until("lost")
    assert re.fullmatch(f"{re.escape(CRASH_TEXT)}: {text}", reason)


async def test_everything_sent_before_a_kill_is_delivered_before_the_death(client, events):
    submit(client, 1, "kill")
    block_loop_until(lambda: not is_alive(client.pid))  # more than one gulp lies in the ring now
    assert "killed by signal 9 (out of memory?)" in await events.until("lost")
    assert events.kinds() == ["started", *["text"] * 3000, "done", "lost"]


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 13])
async def test_a_worker_that_dies_within_a_frame_delivers_nothing_of_it(client, events, cut):
    submit(client, 1, f"cut {cut}")
    await events.until("lost")
    assert events.kinds() == ["started", "lost"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("exit 0", "exit status 0"),
        ("exit 5", "exit status 5"),
        ("garbage", "cannot be decoded: frame version 255"),
        ("again", "unexpected message: Ready"),
    ],
)
async def test_every_other_end_has_its_reason(client, events, command, text):
    submit(client, 1, command)
    assert text in await events.until("lost")
    assert not is_alive(client.pid)


async def test_an_impossible_read_index_is_seen_with_the_next_request(client, events):
    submit(client, 1, "index")
    await events.until("text")  # it is written
    submit(client, 2, "answer")
    assert "read index" in await events.until("lost")


async def test_a_stalled_worker_with_requests_is_killed(make_client, events):
    client = make_client(stall_timeout_s=0.3)
    await start(client)
    submit(client, 1, "wait")
    assert "no message for 0.3 s" in await events.until("lost")
    assert not is_alive(client.pid)


async def test_a_worker_without_requests_may_send_nothing(make_client, events):
    client = make_client(stall_timeout_s=0.05)
    await start(client)
    submit(client, 1, "nap")  # five times as long
    while client.heartbeat is None and "lost" not in events.kinds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "lost" not in events.kinds()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_late_is_not_the_workers_silence(run):
    async def main():
        events = Events()
        client = new_client(events, module=MISBEHAVING, stall_timeout_s=0.3)
        try:
            await start(client)
            submit(client, 1, "answer")
            over = time.monotonic() + 0.4
            inbound = client._transport._channel.pipe._inbound
            block_loop_until(lambda: inbound.readable() and time.monotonic() > over)
            await events.until("done")
            await perform(client, Tokenize("a"))
            assert "lost" not in events.kinds()
        finally:
            await client.stop(0)

    run(main())


@pytest.mark.slow
async def test_a_worker_that_sends_heartbeats_is_not_stalled(make_client, events):
    client = make_client(stall_timeout_s=1.0)
    await start(client)
    submit(client, 1, "breathe")  # for one and a half seconds
    assert (await events.until("done")).reason == "stop"
