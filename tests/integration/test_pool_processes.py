"""The pool with real worker processes that are killed for real."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from contextlib import asynccontextmanager

import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.core.errors import LoadFailed, ShuttingDown, WorkerDied
from ollama_async.queue.backend import Job, LoadOptions, Target
from ollama_async.queue.memory_budget import Limits
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.pool import Pool

DEADLINE_S = 30.0

pytestmark = pytest.mark.slow


class Listener:
    """A sink whose every word can be waited for."""

    def __init__(self, has_sent=True):
        self.text_so_far = ""
        self.reason = None
        self.error = None
        self.has_sent = has_sent
        self._news = asyncio.Event()

    def started(self, load_ns):
        self.load_ns = load_ns

    def part(self, part):
        raise AssertionError(part)

    def text(self, text):
        self.text_so_far += text
        self._news.set()

    def finished(self, finish):
        self.reason = finish.reason
        self._news.set()

    def failed(self, error):
        self.error = error
        self._news.set()

    def may_restart(self):
        if not self.has_sent:
            self.text_so_far = ""
        return not self.has_sent

    async def until(self, is_so):
        async with asyncio.timeout(DEADLINE_S):
            while not is_so(self):
                await self._news.wait()
                self._news.clear()

    async def end(self):
        await self.until(lambda sink: sink.reason or sink.error)
        return self


class Observer:
    def __init__(self):
        self.notes = []
        self._news = asyncio.Event()

    def _note(self, *note):
        self.notes.append(note)
        self._news.set()

    async def until(self, note):
        async with asyncio.timeout(DEADLINE_S):
            while note not in self.notes:
                await self._news.wait()
                self._news.clear()

    def rejected(self, reason):
        self._note("rejected", reason)

    def waited(self, model, _seconds):
        self._note("waited", model)

    def loaded(self, model, outcome, _seconds):
        self._note("loaded", model, outcome)

    def unloaded(self, model, reason):
        self._note("unloaded", model, reason)

    def worker_died(self, model):
        self._note("died", model)


class House:
    def __init__(self, folder, scripts, settings):
        file = folder / "scripts.json"
        file.write_text(json.dumps(scripts))
        self.environ = {**os.environ, "OLLAMA_ASYNC_SCRIPTS": str(file)}
        self.observer = Observer()
        self.slots = settings.pop("slots", 1)
        limits = Limits(max_queue=5, capacity={"cpu": 100}, keep_alive_s=math.inf)
        self.pool = Pool(limits, self.plan, self.observer, **settings)

    def plan(self, target, options):
        num_ctx = options.num_ctx or 4096
        spec = LoadSpec(engine="scripted", model=target.path, num_ctx=num_ctx, slots=self.slots)
        return [
            LoadPlan(
                demand={"cpu": 1},
                slots=self.slots,
                num_ctx=num_ctx,
                spec=spec,
                environ=self.environ,
            )
        ]

    def submit(self, model, sink=None):
        sink = sink or Listener()
        job = Job(
            target=Target(
                key=model,
                name=model,
                digest="",
                engine="scripted",
                path=model,
                weights_bytes=0,
                cache_bytes_per_token=0,
                train_ctx=0,
                details={},
            ),
            load_options=LoadOptions(),
            client="ann",
            inference=Inference(Prompt(raw="hi"), Sampling()),
        )
        sink.handle = self.pool.submit(job, sink)
        return sink

    def pid(self):
        [runner] = self.pool._runners.values()
        return runner._worker.pid


@pytest.fixture
def house(tmp_path):
    @asynccontextmanager
    async def open_house(scripts, **settings):
        made = House(tmp_path, scripts, settings)
        try:
            yield made
        finally:
            async with asyncio.timeout(DEADLINE_S):
                await made.pool.close()

    return open_house


async def test_a_request_is_answered_and_close_leaves_nothing(house):
    async with house({"story": {"tokens": "Once upon a time"}}) as it:
        sink = await it.submit("story").end()
        assert (sink.text_so_far, sink.reason) == ("Once upon a time", "stop")
        assert sink.load_ns > 0


async def test_a_killed_worker_fails_who_has_heard_of_it_and_repeats_the_rest(house):
    scripts = {"slow": {"tokens": ["a "], "repeat": True, "tokens_per_second": 50}}
    async with house(scripts, slots=2) as it:
        spoke, silent = it.submit("slow"), it.submit("slow", Listener(has_sent=False))
        await spoke.until(lambda sink: sink.text_so_far)
        await silent.until(lambda sink: sink.text_so_far)
        pid = it.pid()
        os.kill(pid, signal.SIGKILL)
        await spoke.end()
        assert isinstance(spoke.error, WorkerDied)
        assert "killed" in spoke.error.message
        assert silent.text_so_far == ""
        await silent.until(lambda sink: sink.text_so_far)
        assert it.pid() != pid
        silent.handle.cancel()
        other = it.submit("slow")
        await other.until(lambda sink: sink.text_so_far)


async def test_a_crash_that_comes_once_is_not_seen_by_whoever_had_no_byte(house, tmp_path):
    marker = str(tmp_path / "crashed")
    scripts = {"weak": {"tokens": "all is well", "crash_at": 1, "crash_once_file": marker}}
    async with house(scripts) as it:
        sink = await it.submit("weak", Listener(has_sent=False)).end()
        assert (sink.text_so_far, sink.reason) == ("all is well", "stop")
        assert ("died", "weak") in it.observer.notes


async def test_a_model_that_always_crashes_is_given_up_and_the_client_told(house):
    async with house({"weak": {"tokens": "all is well", "crash_at": 1}}) as it:
        for _ in range(2):
            sink = await it.submit("weak", Listener(has_sent=False)).end()
            assert isinstance(sink.error, WorkerDied)
        with pytest.raises(WorkerDied, match="will be tried again in"):
            it.submit("weak")


async def test_a_worker_that_ignores_sigterm_is_killed(house):
    scripts = {"deaf": {"tokens": "x", "ignore_sigterm": True}}
    async with house(scripts, stop_grace_s=0.2) as it:
        await it.submit("deaf").end()
        pid = it.pid()
        await it.pool.unload("deaf")
        await it.observer.until(("unloaded", "deaf", "requested"))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_load_that_fails_says_why_and_does_not_stop_the_next(house):
    scripts = {"bad": {"load_error": "tensor data is short"}, "good": {"tokens": "x"}}
    async with house(scripts) as it:
        sinks = [it.submit("bad"), it.submit("bad")]
        for sink in sinks:
            await sink.end()
            assert isinstance(sink.error, LoadFailed)
            assert "tensor data is short" in sink.error.message
        assert (await it.submit("good").end()).reason == "stop"


async def test_a_load_without_progress_is_given_up(house):
    async with house({"lazy": {"load_seconds": 60}}, load_timeout_s=0.001) as it:
        sink = await it.submit("lazy").end()
        assert isinstance(sink.error, LoadFailed)
        assert "timed out" in sink.error.message


async def test_a_worker_killed_while_it_loads_fails_the_load(house):
    async with house({"lazy": {"load_seconds": 60}}) as it:
        sink = it.submit("lazy")
        async with asyncio.timeout(DEADLINE_S):
            while not it.pid():  # noqa: ASYNC110  # one step, no polling
                await asyncio.sleep(0)  # the spawn is the first step of the pool's task
        os.kill(it.pid(), signal.SIGKILL)
        await sink.end()
        assert isinstance(sink.error, LoadFailed)


async def test_a_hanging_engine_is_killed_and_its_requests_are_told(house):
    scripts = {"stuck": {"tokens": "one two three", "hang_at": 1}}
    async with house(scripts, stall_timeout_s=3.0) as it:
        sink = await it.submit("stuck").end()
        assert isinstance(sink.error, WorkerDied)
        assert "silent" in sink.error.message


async def test_a_cancelled_answer_frees_the_slot_for_the_next(house):
    scripts = {"endless": {"tokens": ["a "], "repeat": True, "tokens_per_second": 100}}
    async with house(scripts) as it:
        first = it.submit("endless")
        await first.until(lambda sink: sink.text_so_far)
        second = it.submit("endless")
        first.handle.cancel()
        heard = first.text_so_far
        await second.until(lambda sink: sink.text_so_far)
        assert first.text_so_far == heard


async def test_closing_while_a_model_loads_and_another_answers_leaves_nothing(house):
    scripts = {
        "endless": {"tokens": ["a "], "repeat": True, "tokens_per_second": 100},
        "lazy": {"load_seconds": 60},
    }
    async with house(scripts) as it:
        answering = it.submit("endless")
        await answering.until(lambda sink: sink.text_so_far)
        loading = it.submit("lazy")
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.close()
        for sink in (answering, loading):
            assert isinstance(sink.error, ShuttingDown)


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_cancelled_close_still_ends_every_process(house, steps):
    scripts = {"deaf": {"tokens": "x", "ignore_sigterm": True}}
    async with house(scripts, stop_grace_s=60.0) as it:
        await it.submit("deaf").end()
        pid = it.pid()
        closing = asyncio.create_task(it.pool.close())
        for _ in range(1 + steps):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
