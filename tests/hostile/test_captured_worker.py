"""A worker in an attacker's hands can waste its own time and fail its own requests, no more: the
gateway's loop goes on, gets nothing of other requests, and reaps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path

import pytest

from ollama_async.core import errors
from ollama_async.core.conversation import Detokenize
from ollama_async.workers.load_spec import ResourceLimits
from tests.integration.worker_harness import Events, new_client, perform, start, submit

HERE = Path(__file__).parent
DEADLINE_S = 60.0
ENVIRON = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"]}
LONGEST_TURN_S = 10.0
"""A turn of the loop takes milliseconds; one that waits for the worker never ends."""


@contextlib.asynccontextmanager
async def watched_loop():
    """Fails if a turn of the loop takes long."""
    loop = asyncio.get_running_loop()
    longest_s = 0.0

    async def watch():
        nonlocal longest_s
        while True:
            begun_s = loop.time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, loop.time() - begun_s)

    task = loop.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert longest_s < LONGEST_TURN_S


@contextlib.asynccontextmanager
async def captured(engine="none", **limits):
    events = Events()
    client = new_client(events, number=1, module="captured_worker")
    try:
        async with watched_loop(), asyncio.timeout(DEADLINE_S):
            await start(client, engine, environ=ENVIRON, limits=ResourceLimits(**limits))
            yield client, events
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await client.stop(0)
            await client.wait_gone()


def order(client, attack, *, number=1, num_predict=4):
    submit(client, number, attack, num_predict=num_predict)


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ("ringing", "rings without sending anything"),
        ("text", "sent more for request 1 than was requested"),
        ("empty text", "sent more for request 1 than was requested"),
        ("thoughts", "sent more for request 1 than was requested"),
        ("logprobs", "sent more for request 1 than was requested"),
        ("empty logprobs", "sent more for request 1 than was requested"),
        ("unlikely logprobs", "reports a logprob of nan"),
        ("cached", "a part that is larger than the whole"),
        ("stop string", "a stop string that is too long"),
        ("vectors", "sent a vector too many for request 1"),
        ("start", "reports impossible numbers"),
        ("calls", "sent more for request 1 than was requested"),
        ("unsayable call", "invalid tool call"),
        ("other", "sent output for unknown request 2"),
        ("twice", "started request 1 out of order"),
        ("ended", "ended unknown request 1"),
        ("failed", "ended unknown request 8"),
        ("usage", "reports impossible numbers"),
        ("heartbeat", "reports a cache use of nan"),
        ("heartbeats", "too many messages that are no answers"),
        ("answers", "ended unknown request -5"),
        ("large", "frame of 15728640 bytes"),
        ("invalid", "cannot be decoded: no message"),
    ],
)
async def test_a_worker_that_violates_the_protocol_is_killed(attack, text):
    async with captured() as (client, events):
        order(client, attack)
        assert text in await events.until("lost")
        assert len(events.text(1)) <= 100_000, "four tokens were asked for"


async def test_what_a_fault_quotes_of_a_worker_is_short_and_plain():
    async with captured() as (client, events):
        order(client, "tag")
        reason = await events.until("lost")
    assert len(reason) < 1000
    assert reason.isprintable()


@pytest.mark.parametrize("attack", ["bells", "closed bells", "crumbs"])
async def test_a_worker_cannot_make_the_loop_wait_for_it(attack):
    async with captured() as (client, _):
        order(client, attack)
        with contextlib.suppress(errors.WorkerDied):  # it may be killed for it at any time
            for number in range(2, 200):
                order(client, attack, number=number)
                await asyncio.sleep(0.001)
        await client.stop(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["log", "short lines"])
async def test_a_worker_that_prints_without_end_fills_no_log(attack, caplog):
    caplog.set_level("INFO", "ollama_async.workers")
    async with captured() as (client, _):
        order(client, attack)
        await asyncio.sleep(1)
    logged = sum(len(record.getMessage()) for record in caplog.records)
    assert logged < 2 << 20
    assert "lines dropped" in caplog.messages[-1]


@pytest.mark.slow
async def test_a_worker_that_is_traced_when_it_dies_does_not_hold_up_the_loop():
    async with captured() as (client, events):
        order(client, "traced")
        reason = await events.until("lost")
        if events.text(1) == "untraced":
            pytest.skip("nobody may trace here")
        assert "killed by signal 9" in reason


async def test_what_a_worker_claims_to_be_is_bounded_by_what_was_planned():
    async with captured("many slots", slots=3, num_ctx=99) as (client, _):
        facts = client.facts
        assert (facts.slots, facts.num_ctx) == (3, 99)
        assert sum(map(len, facts.warnings)) < 20_000
        assert all(text.isprintable() for text in facts.warnings)


async def test_a_worker_with_impossible_sizes_does_not_start():
    with pytest.raises(errors.LoadFailed, match="reports impossible numbers"):
        async with captured("negative"):
            pass


async def test_a_workers_error_is_short_and_plain():
    async with captured() as (client, events):
        order(client, "error")
        message = (await events.until("failed")).message
    assert message.startswith("no [31m")
    assert len(message) < 10_000


@pytest.mark.parametrize("own", [resource.RLIM_INFINITY, 512 << 20])
async def test_a_worker_gets_no_more_memory_than_was_planned(monkeypatch, own):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (own, own))
    planned = 512 << 20 if own == resource.RLIM_INFINITY else 1 << 40
    async with captured(memory_bytes=planned) as (client, events):
        order(client, "memory")
        await events.until("text")
        assert int(events.text(1)) < 8


async def test_a_worker_is_the_one_to_be_killed_and_gains_no_rights():
    async with captured() as (client, _):
        _, status = await perform(client, Detokenize([1]))
        score = oom_score(client.pid)
    assert "NoNewPrivs:\t1" in status
    assert score == min(oom_score("self") + 500, 1000)


def oom_score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
