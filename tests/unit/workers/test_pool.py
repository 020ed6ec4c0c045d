"""The pool with workers of paper: every effect is performed, every outcome reported, nothing stays.

Real processes are in ``tests/integration/test_pool_processes.py``.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager

import pytest

from ollama_async.core.conversation import (
    Inference,
    Prompt,
    Sampling,
    Thought,
    ToolCall,
    ToolFunction,
    Usage,
)
from ollama_async.core.errors import (
    BadRequest,
    Busy,
    EngineFailed,
    LoadFailed,
    ServerError,
    ShuttingDown,
    TooLarge,
    WorkerDied,
)
from ollama_async.queue.backend import Job, LoadOptions, Target
from ollama_async.queue.memory_budget import Limits
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Done, Failed, Heartbeat, Ready, ToolCallDelta
from ollama_async.workers.pool import STOP_GRACE_S, Pool

DEADLINE_S = 10.0


class PaperWorker:
    """Does what a link promises, when the test says so."""

    def __init__(self, events, generation):
        self.events = events
        self.generation = generation
        self.calls = []
        self.asked = {}
        self.told = {}
        self.is_gone = False
        self.survives_kill = False
        self.has_aborted = False
        self.refuses = None
        self.holds_stop = False
        self._loop = asyncio.get_running_loop()
        self.ready_or_not = self._loop.create_future()
        self.may_stop = asyncio.Event()
        self.may_go = asyncio.Event()

    async def start(self, argv, environ, *, bounds, load_timeout_s):
        self.calls.append(("start", argv, environ, load_timeout_s))
        self.bounds = bounds
        try:
            return await self.ready_or_not
        except BaseException:
            self.is_gone = not self.survives_kill
            raise

    def submit(self, request, num_predict):
        if self.refuses is not None:
            raise self.refuses
        self.asked[request.id] = request.inference
        self.told[request.id] = request.client, num_predict

    def cancel(self, request_id):
        self.calls.append(("cancel", request_id))

    async def stop(self, grace_s):
        self.calls.append(("stop", grace_s))
        if not self.ready_or_not.done():
            self.ready_or_not.set_exception(LoadFailed("stopped"))
        if self.holds_stop:
            await self.may_stop.wait()
        self.is_gone = not self.survives_kill

    async def closed(self):
        await self.may_go.wait()

    # what the test makes it do

    def go(self):
        """The process that survived SIGKILL goes at last."""
        self.is_gone = True
        self.may_go.set()

    async def ready(self, slots=1, **facts):
        defaults = {
            "num_ctx": 4096,
            "weights_bytes": 100,
            "cache_bytes": 20,
            "compute_bytes": 3,
            "device_bytes": 0,
        }
        self.ready_or_not.set_result(Ready(slots=slots, **{**defaults, **facts}))
        await turns()

    def answer(self, request_id, *texts, reason="stop"):
        self.events.started(request_id)
        for text in texts:
            self.events.pieces([(request_id, text)])
        del self.asked[request_id]
        self.events.done(Done(request_id, reason, Usage(prompt=1, answer=len(texts)), [7]))

    def die(self, reason="killed by signal 9", *, has_aborted=False):
        self.is_gone = not self.survives_kill
        self.has_aborted = has_aborted
        self.events.died(reason)


class Listener:
    """A sink that writes down what it hears."""

    def __init__(self, has_sent=True):
        self.heard = []
        self.load_ns = None
        self.has_sent = has_sent
        self.ended = asyncio.Event()

    def started(self, load_ns):
        self.load_ns = load_ns
        self.heard.append("started")

    def text(self, text):
        self.heard.append(text)

    def part(self, part):
        self.heard.append(part)

    def finished(self, finish):
        self.heard.append(finish.reason)
        self.finish = finish
        self.ended.set()

    def failed(self, error):
        self.heard.append(error)
        self.ended.set()

    def may_restart(self):
        if not self.has_sent:
            self.heard.clear()
        return not self.has_sent


class Notes:
    """An observer."""

    def __init__(self):
        self.notes = []

    def rejected(self, reason):
        self.notes.append(("rejected", reason))

    def waited(self, model, seconds):
        assert seconds >= 0
        self.notes.append(("waited", model))

    def loaded(self, model, outcome, seconds):
        assert seconds >= 0
        self.notes.append(("loaded", model, outcome))

    def unloaded(self, model, reason):
        self.notes.append(("unloaded", model, reason))

    def worker_died(self, model):
        self.notes.append(("died", model))


class House:
    """A pool, its paper workers and its notes."""

    def __init__(self, **settings):
        self.workers = []
        self.plan_fault = None
        self.observer = Notes()
        limits = Limits(
            max_queue=settings.pop("max_queue", 5),
            capacity={"cpu": 100},
            max_loaded=settings.pop("max_loaded", 3),
            keep_alive_s=settings.pop("keep_alive_s", math.inf),
        )
        self.slots = settings.pop("slots", 1)
        self.pool = Pool(limits, self.plan, self.observer, make_worker=self.hire, **settings)

    def plan(self, target, options):
        if self.plan_fault:
            raise self.plan_fault
        spec = LoadSpec(engine="scripted", model=target.path, num_ctx=4096, slots=self.slots)
        size = 1000 if target.key == "huge" else 10
        return [
            LoadPlan(
                demand={"cpu": size},
                slots=self.slots,
                num_ctx=options.num_ctx or 4096,
                spec=spec,
                environ={"A": "1"},
            )
        ]

    def hire(self, events, generation):
        worker = PaperWorker(events, generation)
        self.workers.append(worker)
        return worker

    def submit(self, key="a", sink=None, inference=None, **job):
        sink = sink or Listener()
        sink.handle = self.pool.submit(
            Job(
                target=target(key),
                load_options=job.pop("load_options", LoadOptions()),
                client=job.pop("client", "ann"),
                inference=inference or Inference(Prompt(raw="hi"), Sampling()),
                **job,
            ),
            sink,
        )
        return sink

    async def up(self, key="a", **facts):
        """The model is loaded and idle."""
        sink = self.submit(key)
        await turns()
        worker = self.workers[-1]
        await worker.ready(**facts)
        worker.answer(*worker.asked)
        assert sink.heard == ["started", "stop"]
        return worker


def target(key):
    return Target(
        key=key,
        name=f"{key}:latest",
        digest="",
        engine="scripted",
        path=key,
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=0,
        details={},
    )


async def turns():
    """Let tasks that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def house(**settings):
    made = House(**settings)
    try:
        yield made
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await made.pool.close()
        assert all(worker.is_gone for worker in made.workers)
        assert not made.pool._runners
        assert not made.pool._entries
        assert not made.pool._tasks


async def test_a_request_loads_runs_and_ends():
    async with house() as it:
        sink = it.submit()
        await turns()
        [worker] = it.workers
        [(_, argv, environ, _)] = worker.calls
        assert "--model" in argv
        assert environ == {"A": "1"}
        await worker.ready()
        [request_id] = worker.asked
        worker.answer(request_id, "Hel", "lo")
        assert sink.heard == ["started", "Hel", "lo", "stop"]
        assert sink.load_ns > 0
        assert sink.finish.usage.answer == 2
        assert sink.finish.context == [7]
        assert it.observer.notes == [("loaded", "a:latest", "ok"), ("waited", "a:latest")]


async def test_one_slot_and_a_queue_of_one_serve_two_of_six_and_refuse_four():
    async with house(max_queue=1) as it:
        worker = await it.up()
        sinks, refusals = [], []
        for number in range(6):
            try:
                sinks.append(it.submit(client=f"client {number}"))
            except Busy as busy:
                refusals.append(busy.retry_after_s)
        assert (len(sinks), len(refusals)) == (2, 4)
        assert min(refusals) >= 1
        for _ in sinks:
            worker.answer(*worker.asked, "x")
        assert [sink.heard for sink in sinks] == [["started", "x", "stop"]] * 2
        assert it.observer.notes.count(("rejected", "full")) == 4


async def test_texts_go_to_their_own_sinks_only():
    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        first, second = it.submit(), it.submit()
        one, two = worker.asked
        worker.events.pieces([(one, "a"), (two, "b"), (one, "c"), (999, "nobody's")])
        assert (first.heard, second.heard) == (["a", "c"], ["b"])


async def test_a_worker_hears_who_asks_and_how_much_it_may_say():
    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        it.submit(client="ann", num_predict=3)
        it.submit(client="bob")
        assert [worker.told[number] for number in worker.asked] == [("ann", 3), ("bob", -1)]


async def test_thoughts_and_calls_keep_their_place_between_texts():
    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        sink, other = it.submit(), it.submit()
        one, two = worker.asked
        call = ToolCall(ToolFunction("f", {"x": 1}), "call_1")
        said = [Thought("hm"), "so", ToolCallDelta(call), "done"]
        worker.events.pieces([(one, piece) for piece in said] + [(two, "b")])
        assert sink.heard == [Thought("hm"), "so", call, "done"]
        assert other.heard == ["b"]


async def test_a_sink_that_fails_does_not_cost_the_others_their_text():
    class Broken(Listener):
        def text(self, text):
            raise RuntimeError(text)

    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        it.submit(sink=Broken())
        healthy = it.submit()
        one, two = worker.asked
        worker.events.pieces([(one, "a"), (two, "b")])
        assert healthy.heard == ["b"]


async def test_a_job_without_inference_only_loads():
    async with house() as it:
        sink = Listener()
        job = Job(target=target("a"), load_options=LoadOptions(), client="ann", inference=None)
        it.pool.submit(job, sink)
        await turns()
        await it.workers[0].ready()
        assert sink.heard == ["load"]
        again = Listener()
        it.pool.submit(job, again)
        assert again.heard == ["load"], "at once"
        assert not it.workers[0].asked


async def test_a_cancelled_request_is_silent_and_frees_its_slot_when_the_worker_says_so():
    async with house() as it:
        worker = await it.up()
        first, second = it.submit(), it.submit()
        [one] = worker.asked
        first.handle.cancel()
        first.handle.cancel()
        assert worker.calls.count(("cancel", one)) == 1
        worker.events.started(one)
        worker.events.pieces([(one, "late")])
        assert list(worker.asked) == [one]
        worker.answer(one, reason="cancel")
        assert first.heard == []
        worker.answer(*worker.asked, "x")
        assert second.heard == ["started", "x", "stop"]
        first.handle.cancel()


async def test_a_client_that_leaves_while_it_waits_is_never_started():
    async with house() as it:
        worker = await it.up()
        it.submit()
        waiting = it.submit()
        waiting.handle.cancel()
        assert it.pool.snapshot().waiting == 0
        worker.answer(*worker.asked)
        assert not worker.asked


async def test_a_worker_that_ignores_a_cancel_is_killed():
    async with house(stall_timeout_s=0.01) as it:
        worker = await it.up()
        it.submit().handle.cancel()
        waiting = it.submit()
        async with asyncio.timeout(DEADLINE_S):
            while not worker.is_gone or len(it.workers) < 2:
                it.pool._changed.clear()
                await it.pool._changed.wait()
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].asked, "x")
        assert waiting.heard == ["started", "x", "stop"]
        assert ("died", "a:latest") in it.observer.notes


async def test_a_death_fails_what_was_heard_of_and_repeats_the_rest_once():
    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        spoke, silent = it.submit(), it.submit(sink=Listener(has_sent=False))
        worker.events.pieces([(number, "t") for number in worker.asked])
        worker.die("engine crashed")
        [_, error] = spoke.heard
        assert isinstance(error, WorkerDied)
        assert "engine crashed" in error.message
        assert silent.heard == [], "what it had heard is void"
        await turns()
        await it.workers[1].ready(slots=2)
        it.workers[1].answer(*it.workers[1].asked, "again")
        assert silent.heard == ["started", "again", "stop"]
        assert it.observer.notes.count(("waited", "a:latest")) == 3
        assert ("unloaded", "a:latest", "crashed") in it.observer.notes


async def test_a_second_death_fails_the_request():
    async with house() as it:
        worker = await it.up()
        sink = it.submit(sink=Listener(has_sent=False))
        worker.die()
        await turns()
        await it.workers[1].ready()
        it.workers[1].die()
        assert [type(error) for error in sink.heard] == [WorkerDied]


async def test_a_worker_found_dead_when_it_is_asked_answers_by_its_death():
    async with house() as it:
        worker = await it.up()
        worker.refuses = WorkerDied("gone")
        sink = it.submit(sink=Listener(has_sent=False))
        worker.die()
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].asked)
        assert sink.heard == ["started", "stop"]


async def test_a_request_that_the_pipe_cannot_take_fails_alone():
    async with house() as it:
        worker = await it.up()
        worker.refuses = TooLarge("a frame has limits")
        with pytest.raises(TooLarge):
            it.submit()
        worker.refuses = None
        sink = it.submit()
        worker.answer(*worker.asked)
        assert sink.heard == ["started", "stop"]


async def test_a_request_that_cannot_be_written_fails_alone_and_its_slot_is_free_again():
    async with house() as it:
        worker = await it.up()
        running, poisoned, waiting = it.submit(), it.submit(), it.submit()
        [first] = worker.asked
        worker.refuses = OverflowError("no such integer")
        worker.answer(first)
        assert running.heard == ["started", "stop"]
        assert [type(error) for error in poisoned.heard] == [EngineFailed]
        assert [type(error) for error in waiting.heard] == [EngineFailed]
        worker.refuses = None
        last = it.submit()
        worker.answer(*worker.asked)
        assert last.heard == ["started", "stop"]


async def test_a_thousand_refused_starts_in_a_row_are_told_one_by_one():
    async with house(max_queue=2000) as it:
        worker = await it.up()
        running = it.submit()
        [first] = worker.asked
        refused = [it.submit() for _ in range(1200)]
        worker.refuses = TooLarge("a frame has limits")
        worker.answer(first)
        assert running.heard == ["started", "stop"]
        assert {type(error) for sink in refused for error in sink.heard} == {TooLarge}
        assert [len(sink.heard) for sink in refused] == [1] * 1200
        worker.refuses = None
        last = it.submit()
        worker.answer(*worker.asked)
        assert last.heard == ["started", "stop"]


class BrokenObserver(Notes):
    """Raises whatever it is told."""

    def rejected(self, reason):
        raise ZeroDivisionError(reason)

    waited = loaded = unloaded = worker_died = lambda self, *facts: self.rejected(facts)


async def test_an_observer_that_fails_costs_nobody_anything():
    async with house(max_queue=1) as it:
        it.pool._observer = BrokenObserver()
        worker = await it.up()
        running, waiting = it.submit(), it.submit()
        with pytest.raises(Busy):
            it.submit()
        worker.answer(*worker.asked)
        worker.die()
        assert running.heard == ["started", "stop"]
        assert [type(error) for error in waiting.heard] == [WorkerDied]
        again = it.submit()
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].asked)
        assert again.heard == ["started", "stop"]
        await it.pool.unload("a")
        await turns()
        assert not it.pool.snapshot().loaded


async def test_a_worker_that_cannot_be_made_is_a_load_that_failed():
    async with house() as it:
        hire, it.pool._make_worker = it.pool._make_worker, lambda *_: 1 / 0
        with pytest.raises(LoadFailed, match="ZeroDivisionError"):
            it.submit()
        assert not it.pool.snapshot().loading
        it.pool._make_worker = hire
        await it.up()


async def test_an_effect_that_fails_does_not_keep_the_others_from_being_performed():
    async with house(slots=2) as it:
        first, second = it.submit(), it.submit()
        await turns()
        lost = it.pool._entries.pop(1)  # as after a fault of ours
        await it.workers[0].ready(slots=2)
        assert lost.sink is first
        it.workers[0].answer(*it.workers[0].asked)
        assert second.heard == ["started", "stop"]
        others = [it.submit(), it.submit()]
        assert len(it.workers[0].asked) == 2, "both places are free again"
        for number in list(it.workers[0].asked):
            it.workers[0].answer(number)
        assert [sink.heard for sink in others] == [["started", "stop"]] * 2


async def test_a_worker_that_cannot_be_told_of_a_cancel_is_killed():
    async with house() as it:
        worker = await it.up()
        sink = it.submit()
        worker.cancel = lambda _: 1 / 0
        sink.handle.cancel()
        await turns()
        assert ("died", "a:latest") in it.observer.notes
        assert not it.pool._entries
        await it.up()


async def test_a_planner_that_fails_while_others_wait_costs_them_nothing():
    async with house() as it:
        worker = await it.up()
        running = it.submit()
        larger = it.submit(load_options=LoadOptions(num_ctx=8192))
        it.plan_fault = ZeroDivisionError("a bug")
        other = it.submit()
        it.pool._scheduler.state.queues["a"]._plans = None
        worker.answer(*worker.asked)
        assert [type(error) for error in larger.heard] == [LoadFailed]
        worker.answer(*worker.asked)
        assert running.heard == other.heard == ["started", "stop"]


async def test_a_sink_that_fails_does_not_cost_the_others_their_end():
    class Broken(Listener):
        def failed(self, error):
            super().failed(error)
            raise RuntimeError("a bug")

    async with house() as it:
        broken, healthy = it.submit(sink=Broken()), it.submit()
        await turns()
        it.workers[0].ready_or_not.set_exception(LoadFailed("bad magic"))
        await turns()
        assert broken.ended.is_set()
        assert healthy.ended.is_set()


async def test_a_sink_that_fails_when_its_worker_dies_does_not_hide_the_death():
    class Broken(Listener):
        def may_restart(self):
            raise RuntimeError("a bug")

    async with house() as it:
        worker = await it.up()
        broken = it.submit(sink=Broken())
        worker.die()
        assert [type(error) for error in broken.heard] == [WorkerDied]


async def test_a_request_that_was_alone_when_the_worker_aborted_kills_no_second_one():
    async with house() as it:
        worker = await it.up()
        sink = it.submit(sink=Listener(has_sent=False))
        worker.die("GGML_ASSERT(n) failed", has_aborted=True)
        await turns()
        assert [str(error) for error in sink.heard] == ["GGML_ASSERT(n) failed"]
        assert len(it.workers) == 1


@pytest.mark.parametrize(("requests", "has_aborted"), [(1, False), (2, True)])
async def test_requests_that_may_be_innocent_start_again(requests, has_aborted):
    async with house(slots=2) as it:
        worker = await it.up(slots=2)
        sinks = [it.submit(sink=Listener(has_sent=False)) for _ in range(requests)]
        worker.die(has_aborted=has_aborted)
        await turns()
        await it.workers[1].ready(slots=2)
        for _ in sinks:
            it.workers[1].answer(*it.workers[1].asked, "x")
        assert [sink.heard for sink in sinks] == [["started", "x", "stop"]] * requests


async def test_an_error_of_the_worker_reaches_the_client_with_its_status():
    async with house() as it:
        worker = await it.up()
        sink = it.submit()
        worker.events.failed(Failed(*worker.asked, "bad_request", "no such option"))
        [error] = sink.heard
        assert type(error) is BadRequest
        assert error.message == "no such option"


async def test_a_failed_load_fails_all_who_wait_and_the_next_request_tries_again():
    async with house() as it:
        sinks = [it.submit(), it.submit()]
        await turns()
        it.workers[0].ready_or_not.set_exception(LoadFailed("bad magic"))
        await turns()
        assert [[error.message for error in sink.heard] for sink in sinks] == [["bad magic"]] * 2
        assert it.observer.notes == [("loaded", "a:latest", "failed")]
        await it.up()


async def test_a_fault_of_ours_while_loading_reaches_the_client_too():
    async with house() as it:
        sink = it.submit()
        await turns()
        it.workers[0].ready_or_not.set_exception(ZeroDivisionError("a bug"))
        await turns()
        assert isinstance(sink.heard[0], LoadFailed)


async def test_a_worker_that_dies_in_the_same_breath_as_it_is_ready_failed_to_load():
    async with house() as it:
        sink = it.submit()
        await turns()
        worker = it.workers[0]
        worker.ready_or_not.set_result(Ready(1, 4096, 1, 1, 1, 0))
        worker.die("too soon")
        await turns()
        assert isinstance(sink.heard[0], WorkerDied)
        assert sink.heard[0].message == "too soon"


async def test_a_worker_without_slots_failed_to_load():
    async with house() as it:
        sink = it.submit()
        await turns()
        await it.workers[0].ready(slots=0)
        assert "no slots" in sink.heard[0].message
        assert it.workers[0].is_gone


async def test_what_never_fits_is_refused_at_once():
    async with house() as it:
        with pytest.raises(LoadFailed, match="requires more system memory"):
            it.submit("huge")
        assert it.observer.notes == [("rejected", "no_capacity")]


async def test_a_fault_of_the_planner_costs_its_request_and_nothing_else():
    async with house() as it:
        await it.up()
        it.plan_fault = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            it.submit("b")
        assert it.pool.snapshot().waiting == 0
        it.plan_fault = None
        await it.up("b")


async def test_an_idle_model_is_unloaded_by_the_clock():
    async with house(keep_alive_s=0.005) as it:
        worker = await it.up()
        async with asyncio.timeout(DEADLINE_S):
            while not worker.is_gone:
                it.pool._changed.clear()
                await it.pool._changed.wait()
        assert ("unloaded", "a:latest", "idle") in it.observer.notes


async def test_unloading_waits_for_what_runs_and_shows_as_stopping():
    async with house() as it:
        worker = await it.up()
        sink = it.submit()
        await it.pool.unload("a")
        await turns()
        [row] = it.pool.snapshot().loaded
        assert row.expires_at < 2e9
        assert not worker.is_gone
        worker.answer(*worker.asked)
        await turns()
        assert worker.is_gone
        assert sink.heard == ["started", "stop"]
        assert ("unloaded", "a:latest", "requested") in it.observer.notes


async def test_the_snapshot_tells_what_is_loaded_and_who_waits():
    async with house(keep_alive_s=math.inf) as it:
        worker = await it.up(device_bytes=50)
        it.submit()
        it.submit()
        it.submit("b")
        worker.events.vitals(Heartbeat(1, 0.25))
        snapshot = it.pool.snapshot()
        assert (snapshot.waiting, snapshot.capacity, snapshot.loading) == (1, 5, 1)
        assert snapshot.running == {"a:latest": 1, "b:latest": 1}
        [row] = snapshot.loaded
        assert (row.size, row.size_vram, row.num_ctx, row.slots) == (123, 50, 4096, 1)
        assert (row.running, row.busy_slots, row.cache_used) == (1, 1, 0.25)
        assert row.expires_at == math.inf


def shown_expiry(it):
    [row] = it.pool.snapshot().loaded
    return row.expires_at


async def test_when_a_model_expires_does_not_move_while_it_is_idle(monkeypatch):
    async with house(keep_alive_s=300.0) as it:
        await it.up()
        first = shown_expiry(it)
        wall, loop = time.time(), it.pool._loop.time()
        # a quarter of a second by one clock may be more or less by the other
        monkeypatch.setattr(time, "time", lambda: wall + 0.25)
        monkeypatch.setattr(it.pool._loop, "time", lambda: loop + 0.24)
        assert shown_expiry(it) == first
        assert first == pytest.approx(wall + 300, abs=DEADLINE_S)


async def test_when_a_model_expires_follows_a_clock_that_is_set(monkeypatch):
    async with house(keep_alive_s=300.0) as it:
        await it.up()
        first, wall = shown_expiry(it), time.time()
        monkeypatch.setattr(time, "time", lambda: wall + 3600)
        assert shown_expiry(it) == pytest.approx(first + 3600, abs=DEADLINE_S)


async def test_when_a_busy_model_expires_is_counted_from_its_last_use(monkeypatch):
    async with house(keep_alive_s=300.0) as it:
        worker = await it.up()
        it.submit()
        wall, loop = time.time(), it.pool._loop.time()
        seen = []
        for later_s in (0, 100, 299, 301, 599, 601):
            monkeypatch.setattr(time, "time", lambda later_s=later_s: wall + later_s)
            monkeypatch.setattr(it.pool._loop, "time", lambda later_s=later_s: loop + later_s)
            seen.append(shown_expiry(it))
            assert seen[-1] > wall + later_s
        assert seen == [seen[0]] * 3 + [seen[3]] * 2 + [seen[5]]
        assert (seen[3] - seen[0], seen[5] - seen[3]) == (pytest.approx(300), pytest.approx(300))
        worker.answer(*worker.asked)
        await turns()
        assert shown_expiry(it) == pytest.approx(wall + 601 + 300, abs=1)


async def test_a_model_that_leaves_has_expired_and_that_does_not_move_either():
    async with house() as it:
        await it.up()
        it.submit()
        await it.pool.unload("a")
        assert shown_expiry(it) == shown_expiry(it) < time.time()


async def test_draining_lets_running_answers_end_and_fails_the_rest():
    async with house() as it:
        worker = await it.up()
        running, waiting, loading = it.submit(), it.submit(), it.submit("b")
        draining = asyncio.create_task(it.pool.drain(60.0))
        await turns()
        assert [type(sink.heard[0]) for sink in (waiting, loading)] == [ShuttingDown] * 2
        with pytest.raises(ShuttingDown):
            it.submit()
        assert not draining.done()
        worker.answer(*worker.asked, "x")
        async with asyncio.timeout(DEADLINE_S):
            await draining
        assert running.heard == ["started", "x", "stop"]
        assert ("loaded", "b:latest", "cancelled") in it.observer.notes


async def test_after_the_grace_running_answers_are_failed_and_nothing_more_is_heard():
    async with house() as it:
        worker = await it.up()
        sink = it.submit()
        [number] = worker.asked
        it.pool._loop.call_soon(worker.events.pieces, [(number, "late")])
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.drain(0.0)
        assert [type(error) for error in sink.heard] == [ShuttingDown]


async def test_a_death_while_stopping_is_the_stop():
    async with house() as it:
        worker = await it.up()
        worker.holds_stop = True
        await it.pool.unload("a")
        worker.die()
        worker.may_stop.set()
        await turns()
        assert not it.pool.snapshot().loaded
        assert ("died", "a:latest") not in it.observer.notes


async def test_a_sink_may_cancel_and_ask_from_within_what_it_hears():
    async with house() as it:
        worker = await it.up()
        other = Listener()

        class Eager(Listener):
            def failed(self, error):
                super().failed(error)
                other.handle.cancel()
                assert it.submit().heard == []

        running = it.submit(sink=Eager())
        other = it.submit(sink=other)
        worker.die()
        assert isinstance(running.heard[0], ServerError)
        assert other.heard == []
        await turns()
        await it.workers[1].ready()
        assert len(it.workers[1].asked) == 1, "the new one; the cancelled one never starts"


# A process that even SIGKILL does not end


async def stop_it(it, _worker):
    await it.pool.unload("a")


async def lose_it(_it, worker):
    worker.die()


async def hang_in_it(it, _worker):
    it.submit().handle.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while ("died", "a:latest") not in it.observer.notes:
            it.pool._changed.clear()
            await it.pool._changed.wait()


@pytest.mark.parametrize("end", [stop_it, lose_it, hang_in_it])
async def test_memory_of_a_process_that_survives_sigkill_stays_taken(end):
    async with house(max_loaded=1, stall_timeout_s=0.01) as it:
        worker = await it.up()
        worker.survives_kill = True
        await end(it, worker)
        await turns()
        other = it.submit("b")
        await turns()
        assert len(it.workers) == 1, "the memory is not free"
        worker.go()
        await turns()
        assert len(it.workers) == 2
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].asked)
        assert other.heard == ["started", "stop"]


async def test_nobody_waits_for_a_process_that_survives_sigkill_who_can_do_without():
    async with house(max_loaded=2) as it:
        stuck, other = await it.up("a"), await it.up("b")
        stuck.survives_kill = True
        sink = it.submit("c")
        await turns()
        assert ("stop", STOP_GRACE_S) in other.calls, "it has to go instead"
        await it.workers[2].ready()
        it.workers[2].answer(*it.workers[2].asked)
        assert sink.heard == ["started", "stop"]
        stuck.go()


async def test_a_load_whose_process_survives_sigkill_fails_at_once_and_keeps_its_memory():
    async with house(max_loaded=1) as it:
        first = it.submit()
        await turns()
        it.workers[0].survives_kill = True
        it.workers[0].ready_or_not.set_exception(LoadFailed("it hangs"))
        await turns()
        assert [str(error) for error in first.heard] == ["it hangs"]
        it.submit()
        await turns()
        assert len(it.workers) == 1
        it.workers[0].go()
        await turns()
        assert len(it.workers) == 2
        it.workers[1].ready_or_not.set_exception(LoadFailed("no"))


async def test_closing_does_not_wait_for_ever_for_a_process_that_survives_sigkill(monkeypatch):
    monkeypatch.setattr("ollama_async.workers.pool._CLOSE_MARGIN_S", 0.05)
    async with house(stop_grace_s=0.0) as it:
        worker = await it.up()
        worker.survives_kill = True
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.close()
        assert not worker.is_gone
        worker.go()
