"""Loading, unloading, draining and closing, with correct and faulty workers.

Real processes are in ``tests/integration/test_pool_processes.py``.
"""

from __future__ import annotations

import asyncio

import pytest

from ollama_async.core.errors import LoadFailed, ShuttingDown, WorkerDied
from ollama_async.workers.client import CRASH_TEXT
from ollama_async.workers.messages import Ready
from ollama_async.workers.pool import STOP_GRACE_S
from tests.unit.workers.harness import DEADLINE_S, pool, turns


async def test_a_failed_load_fails_its_requests_and_the_next_one_retries():
    async with pool() as it:
        sinks = [it.submit(), it.submit()]
        await turns()
        await it.workers[0].refuse("bad magic")
        await turns()
        assert [[error.message for error in sink.received] for sink in sinks] == [["bad magic"]] * 2
        assert it.observer.notes == [("loaded", "a:latest", "failed")]
        await it.up()


async def test_a_bug_while_loading_fails_the_request():
    async with pool() as it:
        sink = it.submit()
        it.workers[0].start_fault = ZeroDivisionError("a bug")
        await turns()
        assert isinstance(sink.received[0], LoadFailed)


async def test_a_worker_that_dies_in_the_same_turn_as_it_is_ready_failed_to_load():
    async with pool() as it:
        sink = it.submit()
        await turns()
        worker = it.workers[0]
        worker.greet()
        worker.deliver(Ready(1, 4096, 1, 1, 1, 0))
        worker.die("too soon")
        await turns()
        assert isinstance(sink.received[0], WorkerDied)
        assert sink.received[0].message == f"{CRASH_TEXT}: too soon"


async def test_a_worker_without_slots_failed_to_load():
    async with pool() as it:
        sink = it.submit()
        await turns()
        await it.workers[0].ready(slots=0)
        assert "no slots" in sink.received[0].message
        assert it.workers[0].is_gone


async def test_a_model_that_never_fits_is_refused_at_once():
    async with pool() as it:
        with pytest.raises(LoadFailed, match="requires more system memory"):
            it.submit("huge")
        assert it.observer.notes == [("rejected", "no_capacity")]


async def test_an_idle_model_is_unloaded_by_the_timer():
    async with pool(keep_alive_s=0.005) as it:
        worker = await it.up()
        await it.observer.until(("unloaded", "a:latest", "idle"))
        assert worker.is_gone


async def test_unloading_waits_for_running_requests_and_is_shown():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit()
        await it.pool.unload("a")
        await turns()
        [row] = it.pool.snapshot().loaded
        assert row.expires_at < 2e9
        assert not worker.is_gone
        worker.answer(*worker.submitted)
        await turns()
        assert worker.is_gone
        assert sink.received == ["started", "stop"]
        assert ("unloaded", "a:latest", "requested") in it.observer.notes


async def test_draining_lets_running_answers_end_and_fails_the_rest():
    async with pool() as it:
        worker = await it.up()
        running, waiting, loading = it.submit(), it.submit(), it.submit("b")
        draining = asyncio.create_task(it.pool.drain(60.0))
        await turns()
        assert [type(sink.received[0]) for sink in (waiting, loading)] == [ShuttingDown] * 2
        with pytest.raises(ShuttingDown):
            it.submit()
        assert not draining.done()
        worker.answer(*worker.submitted, "x")
        async with asyncio.timeout(DEADLINE_S):
            await draining
        assert running.received == ["started", "x", "stop"]
        assert ("loaded", "b:latest", "cancelled") in it.observer.notes


async def test_after_the_grace_running_answers_are_failed_and_get_nothing_more():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit()
        [number] = worker.submitted
        asyncio.get_running_loop().call_soon(worker.write, (number, "late"))
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.drain(0.0)
        assert [type(error) for error in sink.received] == [ShuttingDown]


async def test_a_death_while_stopping_is_reported_as_the_stop():
    async with pool() as it:
        worker = await it.up()
        worker.holds_stop = True
        await it.pool.unload("a")
        worker.die()
        worker.may_stop.set()
        await turns()
        assert not it.pool.snapshot().loaded
        assert ("died", "a:latest") not in it.observer.notes


# A process that even SIGKILL does not end


async def stop_it(it, _worker):
    await it.pool.unload("a")


async def lose_it(it, worker):
    worker.listener.broken("garbage")
    await it.observer.until(("died", "a:latest"))


async def hang_in_it(it, worker):
    worker.expect_answers_within(0.01)
    it.submit().handle.cancel()
    await it.observer.until(("died", "a:latest"))


@pytest.mark.parametrize("end", [stop_it, lose_it, hang_in_it])
async def test_memory_of_a_process_that_survives_sigkill_stays_taken(monkeypatch, end):
    monkeypatch.setattr("ollama_async.workers.client.REAP_DEADLINE_S", 0.01)
    async with pool(max_loaded=1) as it:
        worker = await it.up()
        worker.survives_kill = True
        await end(it, worker)
        await turns()
        other = it.submit("b")
        await turns()
        assert len(it.workers) == 1, "the memory is not free"
        worker.die()
        await turns()
        assert len(it.workers) == 2
        await it.workers[1].ready()
        it.workers[1].answer(*it.workers[1].submitted)
        assert other.received == ["started", "stop"]


async def test_another_model_is_evicted_instead_of_one_that_survives_sigkill():
    async with pool(max_loaded=2) as it:
        stuck, other = await it.up("a"), await it.up("b")
        stuck.survives_kill = True
        sink = it.submit("c")
        await turns()
        assert STOP_GRACE_S in other.stop_graces_s, "it has to go instead"
        await it.workers[2].ready()
        it.workers[2].answer(*it.workers[2].submitted)
        assert sink.received == ["started", "stop"]
        stuck.die()


async def test_a_load_whose_process_survives_sigkill_fails_at_once_and_keeps_its_memory():
    async with pool(max_loaded=1) as it:
        first = it.submit()
        await turns()
        it.workers[0].survives_kill = True
        await it.workers[0].refuse("it hangs")
        await turns()
        assert [str(error) for error in first.received] == ["it hangs"]
        it.submit()
        await turns()
        assert len(it.workers) == 1
        it.workers[0].die()
        await turns()
        assert len(it.workers) == 2
        await it.workers[1].refuse("no")


async def test_closing_does_not_wait_forever_for_a_process_that_survives_sigkill(monkeypatch):
    monkeypatch.setattr("ollama_async.workers.pool._CLOSE_MARGIN_S", 0.05)
    async with pool(stop_grace_s=0.0) as it:
        worker = await it.up()
        worker.survives_kill = True
        async with asyncio.timeout(DEADLINE_S):
            await it.pool.close()
        assert not worker.is_gone
        worker.die()
