"""The pool with real worker processes that are killed for real."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from contextlib import asynccontextmanager

import pytest

from ollama_async.core.errors import LoadFailed, ShuttingDown, WorkerDied
from ollama_async.queue.memory_budget import Limits
from ollama_async.workers.pool import Pool
from tests.unit.workers.harness import (
    DEADLINE_S,
    RecordingObserver,
    RecordingSink,
    job,
    plan,
)

pytestmark = pytest.mark.slow


class PoolHarness:
    def __init__(self, folder, scripts, settings):
        file = folder / "scripts.json"
        file.write_text(json.dumps(scripts))
        self.environ = {**os.environ, "OLLAMA_ASYNC_SCRIPTS": str(file)}
        self.observer = RecordingObserver()
        self.slots = settings.pop("slots", 1)
        limits = Limits(max_queue=5, capacity={"cpu": 100}, keep_alive_s=math.inf)
        self.pool = Pool(limits, self.plan, self.observer, **settings)

    def plan(self, target, _options):
        return [plan(model=target.path, size=1, slots=self.slots, environ=self.environ)]

    def submit(self, model, sink=None):
        sink = sink or RecordingSink()
        sink.handle = self.pool.submit(job(model), sink)
        return sink

    def pid(self):
        [client] = self.pool._clients.values()
        return client.pid


@pytest.fixture
def make_pool(tmp_path):
    @asynccontextmanager
    async def make_pool(scripts, **settings):
        made = PoolHarness(tmp_path, scripts, settings)
        try:
            yield made
        finally:
            async with asyncio.timeout(DEADLINE_S):
                await made.pool.close()

    return make_pool


async def test_a_request_is_answered_and_close_leaves_nothing(make_pool):
    async with make_pool({"story": {"tokens": "Once upon a time"}}) as it:
        sink = await it.submit("story").end()
        assert (sink.answer, sink.finish.reason) == ("Once upon a time", "stop")
        assert sink.start.load_ns > 0


async def test_a_killed_worker_fails_what_clients_have_seen_and_repeats_the_rest(make_pool):
    scripts = {"slow": {"tokens": ["a "], "repeat": True, "tokens_per_second": 50}}
    async with make_pool(scripts, slots=2) as it:
        seen, unseen = it.submit("slow"), it.submit("slow", RecordingSink(has_sent=False))
        await seen.until(lambda sink: sink.answer)
        await unseen.until(lambda sink: sink.answer)
        pid = it.pid()
        os.kill(pid, signal.SIGKILL)
        await seen.end()
        assert isinstance(seen.error, WorkerDied)
        assert "killed" in seen.error.message
        assert unseen.answer == ""
        await unseen.until(lambda sink: sink.answer)
        assert it.pid() != pid
        unseen.handle.cancel()
        other = it.submit("slow")
        await other.until(lambda sink: sink.answer)


async def test_a_single_crash_is_not_seen_by_clients_that_had_no_byte(make_pool, tmp_path):
    marker = str(tmp_path / "crashed")
    scripts = {"weak": {"tokens": "all is well", "crash_at": 1, "crash_once_file": marker}}
    async with make_pool(scripts) as it:
        sink = await it.submit("weak", RecordingSink(has_sent=False)).end()
        assert (sink.answer, sink.finish.reason) == ("all is well", "stop")
        assert ("died", "weak:latest") in it.observer.notes


async def test_a_model_that_always_crashes_is_given_up_and_the_client_gets_an_error(make_pool):
    async with make_pool({"weak": {"tokens": "all is well", "crash_at": 1}}) as it:
        for _ in range(2):
            sink = await it.submit("weak", RecordingSink(has_sent=False)).end()
            assert isinstance(sink.error, WorkerDied)
        with pytest.raises(WorkerDied, match="will be tried again in"):
            it.submit("weak")


async def test_a_worker_that_ignores_sigterm_is_killed(make_pool):
    scripts = {"stubborn": {"tokens": "x", "ignore_sigterm": True}}
    async with make_pool(scripts, stop_grace_s=0.2) as it:
        await it.submit("stubborn").end()
        pid = it.pid()
        await it.pool.unload("stubborn")
        await it.observer.until(("unloaded", "stubborn:latest", "requested"))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_failed_load_has_its_reason_and_does_not_stop_the_next(make_pool):
    scripts = {"bad": {"load_error": "tensor data is short"}, "good": {"tokens": "x"}}
    async with make_pool(scripts) as it:
        sinks = [it.submit("bad"), it.submit("bad")]
        for sink in sinks:
            await sink.end()
            assert isinstance(sink.error, LoadFailed)
            assert "tensor data is short" in sink.error.message
        assert (await it.submit("good").end()).finish.reason == "stop"


async def test_a_load_without_progress_is_given_up(make_pool):
    async with make_pool({"lazy": {"load_seconds": 60}}, load_timeout_s=0.001) as it:
        sink = await it.submit("lazy").end()
        assert isinstance(sink.error, LoadFailed)
        assert "timed out" in sink.error.message


async def test_a_worker_killed_while_it_loads_fails_the_load(make_pool):
    async with make_pool({"lazy": {"load_seconds": 60}}) as it:
        sink = it.submit("lazy")
        async with asyncio.timeout(DEADLINE_S):
            while not it.pid():  # noqa: ASYNC110  # one step, no polling
                await asyncio.sleep(0)  # the spawn is the first step of the pool's task
        os.kill(it.pid(), signal.SIGKILL)
        await sink.end()
        assert isinstance(sink.error, LoadFailed)


async def test_a_hanging_engine_is_killed_and_its_requests_fail(make_pool):
    scripts = {"stuck": {"tokens": "one two three", "hang_at": 1}}
    async with make_pool(scripts, stall_timeout_s=3.0) as it:
        sink = await it.submit("stuck").end()
        assert isinstance(sink.error, WorkerDied)
        assert "no message for 3 s" in sink.error.message


async def test_a_cancelled_answer_frees_the_slot_for_the_next(make_pool):
    scripts = {"endless": {"tokens": ["a "], "repeat": True, "tokens_per_second": 100}}
    async with make_pool(scripts) as it:
        first = it.submit("endless")
        await first.until(lambda sink: sink.answer)
        second = it.submit("endless")
        first.handle.cancel()
        received = first.answer
        await second.until(lambda sink: sink.answer)
        assert first.answer == received


async def test_closing_while_a_model_loads_and_another_answers_leaves_nothing(make_pool):
    scripts = {
        "endless": {"tokens": ["a "], "repeat": True, "tokens_per_second": 100},
        "lazy": {"load_seconds": 60},
    }
    async with make_pool(scripts) as it:
        answering = it.submit("endless")
        await answering.until(lambda sink: sink.answer)
        loading = it.submit("lazy")
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.close()
        for sink in (answering, loading):
            assert isinstance(sink.error, ShuttingDown)


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_cancelled_close_still_ends_every_process(make_pool, steps):
    scripts = {"stubborn": {"tokens": "x", "ignore_sigterm": True}}
    async with make_pool(scripts, stop_grace_s=60.0) as it:
        await it.submit("stubborn").end()
        pid = it.pid()
        closing = asyncio.create_task(it.pool.close())
        for _ in range(1 + steps):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
