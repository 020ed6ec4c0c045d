"""A worker in an attacker's hands can waste its own time and fail its own requests, no more: the
gateway's loop goes on, hears of nobody else's requests, and buries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path

import pytest

from ollama_async.core import errors
from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.workers import messages
from ollama_async.workers.client import WorkerLink
from ollama_async.workers.load_spec import ResourceLimits

HERE = Path(__file__).parent
DEADLINE_S = 60.0
ENVIRON = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"]}
LONGEST_TURN_S = 10.0
"""A turn of the loop takes milliseconds; one that waits for the worker never ends."""


class Heard:
    """What the link tells."""

    def __init__(self):
        self.texts = []
        self.characters = 0
        self.first_text = asyncio.Event()
        self.death = asyncio.get_running_loop().create_future()
        self.failure = asyncio.get_running_loop().create_future()

    def pieces(self, items):
        self.texts.append(items[0][1])
        self.first_text.set()
        self.characters += sum(len(piece) for _, piece in items if isinstance(piece, str))

    def started(self, request_id):
        """Of no interest."""

    def done(self, done):
        """Of no interest."""

    def failed(self, failed):
        self.failure.set_result(failed.message)

    def vitals(self, vitals):
        """Of no interest."""

    def died(self, reason):
        self.death.set_result(reason)


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
async def captured(*, act="none", **bounds):
    heard = Heard()
    link = WorkerLink(heard, generation=1, module="captured_worker")
    try:
        async with watched_loop(), asyncio.timeout(DEADLINE_S):
            heard.ready = await link.start(["--act", act], ENVIRON, bounds=ResourceLimits(**bounds))
            yield link, heard
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await link.stop(0)
            await link.closed()


def order(link, attack, *, number=1, num_predict=4):
    sampling = Sampling(num_predict=num_predict)
    link.submit(messages.Submit(number, Inference(Prompt(raw=attack), sampling)), num_predict)


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ("ringing", "rings without a word"),
        ("text", "said more of request 1 than was asked for"),
        ("empty text", "said more of request 1 than was asked for"),
        ("thoughts", "said more of request 1 than was asked for"),
        ("calls", "said more of request 1 than was asked for"),
        ("unsayable call", "called a tool with"),
        ("other", "spoke of request 2, which it does not have"),
        ("twice", "started request 1 out of turn"),
        ("ended", "ended request 1, which it does not have"),
        ("failed", "ended request 8, which it does not have"),
        ("usage", "counts what cannot be"),
        ("vitals", "uses nan of its cache"),
        ("chatter", "talks without having to say anything"),
        ("answers", "talks without having to say anything"),
        ("large", "frame of 15728640 bytes"),
        ("invalid", "cannot be read: no message"),
    ],
)
async def test_a_worker_that_says_what_it_should_not_is_killed(attack, text):
    async with captured() as (link, heard):
        order(link, attack)
        assert text in await heard.death
        assert heard.characters <= 100_000, "four tokens were asked for"


async def test_what_a_fault_quotes_of_a_worker_is_short_and_plain():
    async with captured() as (link, heard):
        order(link, "tag")
        reason = await heard.death
    assert len(reason) < 1000
    assert reason.isprintable()


@pytest.mark.parametrize("attack", ["bells", "closed bells", "crumbs"])
async def test_a_worker_cannot_make_the_loop_wait_for_it(attack):
    async with captured() as (link, _):
        order(link, attack)
        with contextlib.suppress(errors.WorkerDied):  # it may be killed for it at any time
            for number in range(2, 200):
                order(link, attack, number=number)
                await asyncio.sleep(0.001)
        await link.stop(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["log", "short lines"])
async def test_a_worker_that_prints_without_end_fills_no_log(attack, caplog):
    caplog.set_level("INFO", "ollama_async.workers")
    async with captured() as (link, _):
        order(link, attack)
        await asyncio.sleep(1)
    logged = sum(len(record.getMessage()) for record in caplog.records)
    assert logged < 2 << 20
    assert "lines are dropped" in caplog.text
    assert "lines dropped" in caplog.messages[-1]


@pytest.mark.slow
async def test_a_worker_that_is_traced_when_it_dies_does_not_hold_up_the_loop():
    async with captured() as (link, heard):
        order(link, "traced")
        reason = await heard.death
        if heard.texts == ["untraced"]:
            pytest.skip("nobody may trace here")
        assert "killed by signal 9" in reason


async def test_what_a_worker_claims_to_be_is_bounded_by_what_was_planned():
    async with captured(act="many slots", slots=3, num_ctx=99) as (_, heard):
        assert (heard.ready.slots, heard.ready.num_ctx) == (3, 99)
        assert sum(map(len, heard.ready.warnings)) < 20_000
        assert all(text.isprintable() for text in heard.ready.warnings)


async def test_a_worker_with_impossible_sizes_does_not_start():
    with pytest.raises(errors.LoadFailed, match="counts what cannot be"):
        async with captured(act="negative"):
            pass


async def test_a_workers_error_is_short_and_plain():
    async with captured() as (link, heard):
        order(link, "error")
        message = await heard.failure
    assert message.startswith("no [31m")
    assert len(message) < 10_000


@pytest.mark.parametrize("own", [resource.RLIM_INFINITY, 512 << 20])
async def test_a_worker_gets_no_more_memory_than_was_planned(monkeypatch, own):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (own, own))
    planned = 512 << 20 if own == resource.RLIM_INFINITY else 1 << 40
    async with captured(memory_bytes=planned) as (link, heard):
        order(link, "memory")
        await heard.first_text.wait()
        assert int(heard.texts[0]) < 8


async def test_a_worker_is_the_one_to_be_killed_and_gains_no_rights():
    async with captured() as (link, _):
        status = await link.detokenize([1])
        score = oom_score(link.pid)
    assert "NoNewPrivs:\t1" in status
    assert score == min(oom_score("self") + 500, 1000)


def oom_score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
