"""Faults of workers, sinks, observers and planners: each costs only what it must.

Real processes are in ``tests/integration/test_pool_processes.py``.
"""

from __future__ import annotations

import pytest

from ollama_async.core.errors import Busy, EngineFailed, LoadFailed, TooLarge, WorkerDied
from ollama_async.queue.backend import LoadOptions
from ollama_async.workers.client import CRASH_TEXT
from ollama_async.workers.frames import FrameTooLarge
from tests.unit.workers.harness import RecordingObserver, RecordingSink, pool, turns


async def test_a_sink_that_fails_does_not_cost_the_others_their_text():
    class Broken(RecordingSink):
        def text(self, text):
            raise RuntimeError(text)

    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        it.submit(sink=Broken())
        healthy = it.submit()
        one, two = worker.submitted
        worker.write((one, "a"), (two, "b"))
        assert healthy.received == ["started", "b"]


async def test_a_worker_that_ignores_a_cancel_is_killed():
    async with pool() as it:
        worker = await it.up()
        worker.expect_answers_within(0.01)
        it.submit().handle.cancel()
        waiting = it.submit()
        await it.observer.until(("died", "a:latest"))
        assert worker.is_gone
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].submitted, "x")
        assert waiting.received == ["started", "x", "stop"]


async def test_a_death_fails_requests_that_sent_text_and_restarts_others():
    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        streamed, unanswered = it.submit(), it.submit(sink=RecordingSink(has_sent=False))
        worker.write(*[(number, "t") for number in worker.submitted])
        worker.die("engine crashed")
        [_, _, error] = streamed.received
        assert isinstance(error, WorkerDied)
        assert "engine crashed" in error.message
        assert unanswered.received == [], "what it had received is void"
        await turns()
        await it.workers[1].ready(slots=2)
        it.workers[1].answer(*it.workers[1].submitted, "again")
        assert unanswered.received == ["started", "again", "stop"]
        assert it.observer.notes.count(("waited", "a:latest")) == 3
        assert ("unloaded", "a:latest", "crashed") in it.observer.notes


async def test_a_second_death_fails_the_request():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit(sink=RecordingSink(has_sent=False))
        worker.die()
        await turns()
        await it.workers[1].ready()
        it.workers[1].die()
        assert [type(error) for error in sink.received] == [WorkerDied]


async def test_a_request_to_a_worker_that_is_being_killed_is_started_again():
    async with pool() as it:
        worker = await it.up()
        worker.listener.broken("garbage")
        sink = it.submit(sink=RecordingSink(has_sent=False))
        assert not worker.submitted
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].submitted)
        assert sink.received == ["started", "stop"]


async def test_a_request_too_large_for_the_pipe_fails_alone():
    async with pool() as it:
        worker = await it.up()
        worker.send_fault = FrameTooLarge("a frame has limits")
        with pytest.raises(TooLarge):
            it.submit()
        worker.send_fault = None
        sink = it.submit()
        worker.answer(*worker.submitted)
        assert sink.received == ["started", "stop"]


async def test_a_request_that_cannot_be_written_fails_alone_and_its_slot_is_free_again():
    async with pool() as it:
        worker = await it.up()
        running, poisoned, waiting = it.submit(), it.submit(), it.submit()
        [first] = worker.submitted
        worker.send_fault = OverflowError("no such integer")
        worker.answer(first)
        assert running.received == ["started", "stop"]
        assert [type(error) for error in poisoned.received] == [EngineFailed]
        assert [type(error) for error in waiting.received] == [EngineFailed]
        worker.send_fault = None
        last = it.submit()
        worker.answer(*worker.submitted)
        assert last.received == ["started", "stop"]


async def test_a_thousand_refused_starts_in_a_row_fail_one_by_one():
    async with pool(max_queue=2000) as it:
        worker = await it.up()
        running = it.submit()
        [first] = worker.submitted
        refused = [it.submit() for _ in range(1200)]
        worker.send_fault = FrameTooLarge("a frame has limits")
        worker.answer(first)
        assert running.received == ["started", "stop"]
        assert {type(error) for sink in refused for error in sink.received} == {TooLarge}
        assert [len(sink.received) for sink in refused] == [1] * 1200
        worker.send_fault = None
        last = it.submit()
        worker.answer(*worker.submitted)
        assert last.received == ["started", "stop"]


class BrokenObserver(RecordingObserver):
    """Fails at every report."""

    def rejected(self, reason):
        raise ZeroDivisionError(reason)

    waited = loaded = unloaded = worker_died = lambda self, *facts: self.rejected(facts)


async def test_a_failing_observer_affects_no_request():
    async with pool(max_queue=1, observer=BrokenObserver()) as it:
        worker = await it.up()
        running, waiting = it.submit(), it.submit()
        with pytest.raises(Busy):
            it.submit()
        worker.answer(*worker.submitted)
        worker.die()
        assert running.received == ["started", "stop"]
        assert [type(error) for error in waiting.received] == [WorkerDied]
        again = it.submit()
        await turns()
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].submitted)
        assert again.received == ["started", "stop"]
        await it.pool.unload("a")
        await turns()
        assert not it.pool.snapshot().loaded


async def test_a_worker_that_cannot_be_created_is_a_failed_load():
    async with pool() as it:
        it.transport_fault = ZeroDivisionError("a bug")
        with pytest.raises(LoadFailed, match="ZeroDivisionError"):
            it.submit()
        assert not it.pool.snapshot().loading
        it.transport_fault = None
        await it.up()


async def test_the_other_effects_are_performed_after_one_fails():
    async with pool(slots=2) as it:
        first, second = it.submit(), it.submit()
        await turns()
        lost = it.pool._requests.pop(1)  # as after a bug
        await it.workers[0].ready(slots=2)
        assert lost.sink is first
        it.workers[0].answer(*it.workers[0].submitted)
        assert second.received == ["started", "stop"]
        others = [it.submit(), it.submit()]
        assert len(it.workers[0].submitted) == 2, "both places are free again"
        for number in list(it.workers[0].submitted):
            it.workers[0].answer(number)
        assert [sink.received for sink in others] == [["started", "stop"]] * 2


async def test_a_worker_that_cannot_be_sent_a_cancel_is_killed():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit()
        worker.send_fault = OSError("a bug")
        sink.handle.cancel()
        await turns()
        assert ("died", "a:latest") in it.observer.notes
        await it.up()


async def test_a_failing_planner_does_not_affect_other_requests():
    async with pool() as it:
        worker = await it.up()
        running = it.submit()
        larger = it.submit(load_options=LoadOptions(num_ctx=8192))
        it.plan_fault = ZeroDivisionError("a bug")
        other = it.submit()
        it.pool._scheduler.state.queues["a"]._plans = None
        worker.answer(*worker.submitted)
        assert [type(error) for error in larger.received] == [LoadFailed]
        worker.answer(*worker.submitted)
        assert running.received == other.received == ["started", "stop"]


async def test_a_sink_that_fails_does_not_cost_the_others_their_end():
    class Broken(RecordingSink):
        def failed(self, error):
            super().failed(error)
            raise RuntimeError("a bug")

    async with pool() as it:
        broken, healthy = it.submit(sink=Broken()), it.submit()
        await turns()
        await it.workers[0].refuse("bad magic")
        await turns()
        assert broken.error
        assert healthy.error


async def test_a_sink_that_fails_when_its_worker_dies_does_not_hide_the_death():
    class Broken(RecordingSink):
        def try_restart(self):
            raise RuntimeError("a bug")

    async with pool() as it:
        worker = await it.up()
        broken = it.submit(sink=Broken())
        worker.die()
        assert [type(error) for error in broken.received] == [WorkerDied]


async def test_a_request_alone_in_an_aborted_worker_is_not_restarted():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit(sink=RecordingSink(has_sent=False))
        worker.die("GGML_ASSERT(n) failed", has_aborted=True)
        await turns()
        assert [str(error) for error in sink.received] == [f"{CRASH_TEXT}: GGML_ASSERT(n) failed"]
        assert len(it.workers) == 1


@pytest.mark.parametrize(("requests", "has_aborted"), [(1, False), (2, True)])
async def test_other_suspects_are_restarted(requests, has_aborted):
    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        sinks = [it.submit(sink=RecordingSink(has_sent=False)) for _ in range(requests)]
        worker.die(has_aborted=has_aborted)
        await turns()
        await it.workers[1].ready(slots=2)
        for _ in sinks:
            it.workers[1].answer(*it.workers[1].submitted, "x")
        assert [sink.received for sink in sinks] == [["started", "x", "stop"]] * requests


async def test_a_failing_planner_fails_only_its_request():
    async with pool() as it:
        await it.up()
        it.plan_fault = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            it.submit("b")
        assert it.pool.snapshot().queued == 0
        it.plan_fault = None
        await it.up("b")
