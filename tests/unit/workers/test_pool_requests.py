"""Requests through the pool: started, answered, cancelled, refused.

Real processes are in ``tests/integration/test_pool_processes.py``.
"""

from __future__ import annotations

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction
from ollama_async.core.errors import BadRequest, Busy, ServerError
from ollama_async.workers.messages import Failed, ToolCallDelta
from tests.unit.workers.harness import RecordingSink, job, pool, turns


async def test_a_request_loads_runs_and_ends():
    async with pool() as it:
        sink = it.submit()
        await turns()
        [worker] = it.workers
        assert worker.plan.spec.model == "a"
        assert worker.plan.environ == {"A": "1"}
        await worker.ready()
        [request_id] = worker.submitted
        worker.answer(request_id, "Hel", "lo")
        assert sink.received == ["started", "Hel", "lo", "stop"]
        assert sink.start.load_ns > 0
        assert sink.finish.usage.answer == 2
        assert sink.finish.context == [7]
        assert it.observer.notes == [("loaded", "a:latest", "ok"), ("waited", "a:latest")]


async def test_one_slot_and_a_queue_of_one_serve_two_of_six_and_refuse_four():
    async with pool(max_queue=1) as it:
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
            worker.answer(*worker.submitted, "x")
        assert [sink.received for sink in sinks] == [["started", "x", "stop"]] * 2
        assert it.observer.notes.count(("rejected", "full")) == 4


async def test_texts_go_to_their_own_sinks_only():
    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        first, second = it.submit(), it.submit()
        one, two = worker.submitted
        worker.write((one, "a"), (two, "b"), (one, "c"))
        assert (first.received, second.received) == (
            ["started", "a", "c"],
            ["started", "b"],
        )


async def test_a_worker_gets_the_client_and_may_send_only_the_requested_tokens():
    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        it.submit(client="ann", num_predict=3)
        it.submit(client="bob")
        assert [submitted.client for submitted in worker.submitted.values()] == ["ann", "bob"]
        short, long = worker.submitted
        worker.write((long, "x" * 100_000))
        worker.write((short, "x" * 100_000))
        assert not worker.is_gone
        await turns()
        assert worker.is_gone, "more than three tokens"


async def test_thoughts_and_calls_keep_their_place_between_texts():
    async with pool(slots=2) as it:
        worker = await it.up(slots=2)
        sink, other = it.submit(), it.submit()
        one, two = worker.submitted
        call = ToolCall(ToolFunction("f", {"x": 1}), "call_1")
        deltas = [Thought("hm"), "so", ToolCallDelta(call), "done"]
        worker.write(*[(one, delta) for delta in deltas] + [(two, "b")])
        assert sink.received == ["started", Thought("hm"), "so", call, "done"]
        assert other.received == ["started", "b"]


async def test_a_job_without_inference_only_loads():
    async with pool() as it:
        sink = RecordingSink()
        it.pool.submit(job(task=None), sink)
        await turns()
        await it.workers[0].ready()
        assert sink.received == ["load"]
        again = RecordingSink()
        it.pool.submit(job(task=None), again)
        assert again.received == ["load"], "at once"
        assert not it.workers[0].submitted


async def test_a_cancelled_request_gets_nothing_and_frees_its_slot_when_the_worker_ends_it():
    async with pool() as it:
        worker = await it.up()
        first, second = it.submit(), it.submit()
        [one] = worker.submitted
        first.handle.cancel()
        first.handle.cancel()
        assert worker.cancelled == [one]
        worker.begin(one)
        worker.write((one, "late"))
        assert list(worker.submitted) == [one]
        worker.answer(one, reason="cancel")
        assert first.received == []
        worker.answer(*worker.submitted, "x")
        assert second.received == ["started", "x", "stop"]
        first.handle.cancel()


async def test_a_request_cancelled_while_queued_is_never_started():
    async with pool() as it:
        worker = await it.up()
        it.submit()
        waiting = it.submit()
        waiting.handle.cancel()
        assert it.pool.snapshot().queued == 0
        worker.answer(*worker.submitted)
        assert not worker.submitted


async def test_an_error_of_the_worker_reaches_the_client_with_its_status():
    async with pool() as it:
        worker = await it.up()
        sink = it.submit()
        worker.deliver(Failed(*worker.submitted, "bad_request", "no such option"))
        [error] = sink.received
        assert type(error) is BadRequest
        assert error.message == "no such option"


async def test_a_sink_may_cancel_and_submit_from_within_its_callbacks():
    async with pool() as it:
        worker = await it.up()
        other = RecordingSink()

        class Eager(RecordingSink):
            def failed(self, error):
                super().failed(error)
                other.handle.cancel()
                assert it.submit().received == []

        running = it.submit(sink=Eager())
        other = it.submit(sink=other)
        worker.die()
        assert isinstance(running.received[0], ServerError)
        assert other.received == []
        await turns()
        await it.workers[1].ready()
        assert len(it.workers[1].submitted) == 1, "the new one; the cancelled one never starts"
