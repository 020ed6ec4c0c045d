"""How a request for embeddings is split into jobs, and what ends it."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager, suppress

import pytest

from ollama_async.core.conversation import Thought, Vector
from ollama_async.core.errors import BadRequest, Busy, EngineFailed, ServerError, WorkerDied
from ollama_async.gateway import embedding
from ollama_async.gateway.body import BodyProcessor
from ollama_async.gateway.client_budgets import Reservation, SendBudget
from ollama_async.gateway.embedding import PIECE_INPUTS, PIECES_AT_ONCE, EmbeddingRun
from ollama_async.queue.backend import Job, LoadOptions
from tests.unit.gateway.conftest import DEADLINE_S, FakeRequest, make_target

JOB = Job(
    target=make_target(), load_options=LoadOptions(), client="test", task=None, keep_alive_s=0
)


def vector(number: float) -> bytes:
    return struct.pack("<f", number)


def number_of(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


def answer(job):
    """Each text is its own vector."""
    job.start()
    for index, text in enumerate(job.job.task.inputs):
        job.part(Vector(index, vector(number_of(text)), 2))
    job.end()


@pytest.fixture
async def start(backend):
    """``async with start(inputs) as (run, task)``: the run, and the task that runs it."""

    @asynccontextmanager
    async def start(inputs, budget: SendBudget | None = None, **params):
        with Reservation(budget or SendBudget(), FakeRequest()) as reservation:
            run = EmbeddingRun(
                embedding.EmbeddingParams(job=JOB, inputs=inputs, **params),
                backend,
                BodyProcessor(),
                reservation,
            )
            task = asyncio.create_task(run.run())
            try:
                yield run, task
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError, ServerError):
                    await task

    return start


@pytest.fixture
def settled(backend):
    """Turns the loop until nothing more is submitted; returns the jobs since the last time."""

    async def settled():
        for _ in range(20):
            await asyncio.sleep(0)
        jobs = []
        while not backend.jobs.empty():
            jobs.append(backend.jobs.get_nowait())
        return jobs

    return settled


async def finished(task):
    async with asyncio.timeout(DEADLINE_S):
        await task


def texts(number):
    return [f"{index} text" for index in range(number)]


# pieces


async def test_pieces_are_submitted_a_few_at_a_time_and_the_order_is_kept(start, settled):
    inputs = texts(PIECE_INPUTS * 6 + 3)
    async with start(inputs) as (run, task):
        seen = []
        while jobs := await settled():
            assert len(jobs) <= PIECES_AT_ONCE
            for job in reversed(jobs):  # they may end in any order
                answer(job)
            seen += [len(job.job.task.inputs) for job in jobs]
            assert all(job.job.vectors == len(job.job.task.inputs) for job in jobs)
            firsts = [job.job.task.first for job in jobs]
            assert firsts == sorted(firsts)
            assert not any(first % PIECE_INPUTS for first in firsts)
        await finished(task)
    assert seen == [PIECE_INPUTS] * 6 + [3]
    assert run.vectors == [vector(index) for index in range(len(inputs))]
    assert run.tokens == 2 * len(inputs)


async def test_the_end_of_one_piece_makes_place_for_the_next(start, settled):
    async with start(texts(PIECE_INPUTS * 10)):
        jobs = await settled()
        assert len(jobs) == PIECES_AT_ONCE
        answer(jobs[2])
        assert len(await settled()) == 1


async def test_long_texts_make_smaller_pieces(start, settled, monkeypatch):
    monkeypatch.setattr(embedding, "PIECE_CHARACTERS", 100)
    long = "1 " + "x" * embedding.PIECE_CHARACTERS
    async with start(["0", long, "2", "3", long, long]):
        first = await settled()
        for job in first:
            answer(job)
        sizes = [len(job.job.task.inputs) for job in [*first, *await settled()]]
    assert sizes == [1, 1, 2, 1, 1]


async def test_the_query_counts_for_each_document(start, settled):
    query = "q" * (embedding.PIECE_CHARACTERS // 2)
    async with start(["a", "b", "c"], query=query):
        jobs = await settled()
    assert [job.job.task.query for job in jobs] == [query] * 3


async def test_token_ids_count_as_characters(start, settled):
    ids = [1] * (embedding.PIECE_CHARACTERS // 8)
    async with start([ids, ids, ids]):
        jobs = await settled()
    assert [len(job.job.task.inputs) for job in jobs] == [2, 1]


async def test_only_the_last_piece_sets_keep_alive(start, settled):
    async with start(texts(PIECE_INPUTS * 2 + 1)):
        jobs = await settled()
    assert [job.job.keep_alive_s for job in jobs] == [None, None, 0]


# the queue


async def test_a_full_queue_at_the_beginning_ends_the_request(start, backend):
    backend.refusal = Busy()
    async with start(texts(3)) as (_, task):
        with pytest.raises(Busy):
            await finished(task)


async def test_a_full_queue_later_delays_the_request(start, backend, settled):
    inputs = texts(PIECE_INPUTS * 6)
    async with start(inputs) as (run, task):
        first = await settled()
        backend.refusal = Busy()
        for job in first[:2]:
            answer(job)
        assert await settled() == []
        backend.refusal = None
        answer(first[2])  # wakes the run
        jobs = await settled()
        assert jobs
        for job in [*jobs, first[3]]:
            answer(job)
        await finished(task)
    assert run.vectors == [vector(index) for index in range(len(inputs))]


async def test_a_piece_that_loses_its_place_in_the_queue_is_submitted_again(start, settled):
    inputs = texts(PIECE_INPUTS * 2)
    async with start(inputs) as (run, task):
        first, second = await settled()
        first.fail(Busy())
        (again,) = await settled()
        assert again.job.task.inputs == inputs[:PIECE_INPUTS]
        answer(again)
        answer(second)
        await finished(task)
    assert run.vectors == [vector(index) for index in range(len(inputs))]


async def test_when_all_pieces_lose_their_places_before_one_began_the_request_ends(start, settled):
    async with start(texts(PIECE_INPUTS * 2)) as (_, task):
        first, second = await settled()
        second.fail(Busy())
        first.fail(Busy())
        with pytest.raises(Busy):
            await finished(task)


async def test_a_request_without_progress_fails_at_last(start, backend, settled, monkeypatch):
    async with start(texts(PIECE_INPUTS * 6)) as (_, task):
        first = await settled()
        backend.refusal = Busy()
        monkeypatch.setattr(embedding, "BUSY_TIMEOUT_S", -1)
        answer(first[0])
        with pytest.raises(Busy):
            await finished(task)
        assert all(job.cancelled.is_set() for job in first[1:])


async def test_a_full_queue_is_tried_again_after_a_while(start, backend, settled):
    inputs = texts(PIECE_INPUTS * 5)
    async with start(inputs) as (run, task):
        first = await settled()
        backend.refusal = Busy(retry_after_s=0)
        for job in first:
            answer(job)
        await settled()
        backend.refusal = None
        answer(await backend.job())
        await finished(task)
    assert run.vectors == [vector(index) for index in range(len(inputs))]


# ends


async def test_a_piece_of_a_dead_worker_starts_again_alone(start, settled):
    inputs = texts(PIECE_INPUTS * 2)
    async with start(inputs) as (run, task):
        first, second = await settled()
        answer(second)
        first.start().part(Vector(0, vector(99), 7))
        assert first.restart()
        answer(first)
        await finished(task)
        assert not await settled()
    assert run.vectors == [vector(index) for index in range(len(inputs))]
    assert run.tokens == 2 * len(inputs)


async def test_a_piece_that_fails_cancels_the_others(start, settled):
    async with start(texts(PIECE_INPUTS * 6)) as (_, task):
        jobs = await settled()
        jobs[1].start().fail(WorkerDied("it died"))
        with pytest.raises(WorkerDied):
            await finished(task)
        assert [job.cancelled.is_set() for job in jobs] == [True, False, True, True]
        assert not await settled()


async def test_cancelling_the_request_cancels_its_pieces(start, settled):
    async with start(texts(PIECE_INPUTS * 6)) as (_, task):
        jobs = await settled()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(job.cancelled.is_set() for job in jobs)


@pytest.mark.parametrize(
    "parts",
    [
        [Vector(0, vector(1), 1)],
        [Vector(2, vector(1), 1)],
        [Vector(-1, vector(1), 1)],
        [Vector(0, vector(1), 1), Vector(0, vector(1), 1)],
        [Vector(0, vector(1), 1), Vector(1, vector(1) * 2, 1)],
        [Vector(0, b"", 1), Vector(1, b"", 1)],
        [Vector(0, b"abc", 1), Vector(1, b"abc", 1)],
        [Thought("hm"), Vector(0, vector(1), 1), Vector(1, vector(1), 1)],
    ],
)
async def test_wrong_vectors_are_an_error(start, settled, parts):
    async with start(["a", "b"]) as (_, task):
        (job,) = await settled()
        job.start().part(*parts).end()
        with pytest.raises(EngineFailed):
            await finished(task)


async def test_text_instead_of_vectors_is_an_error(start, settled):
    async with start(["a"]) as (_, task):
        (job,) = await settled()
        job.start().send("text").end()
        with pytest.raises(EngineFailed):
            await finished(task)


async def test_an_answer_that_would_be_too_long_ends_early(start, settled):
    budget = SendBudget()
    async with start(texts(50_000), budget) as (_, task):
        (job, *_) = await settled()
        job.start().part(Vector(0, bytes(4096), 1))
        with pytest.raises(BadRequest, match="too many inputs: 50000; the answer would take"):
            await finished(task)
    assert budget.reserved_bytes == 0


async def test_memory_for_the_whole_answer_is_reserved_at_once(start, settled):
    budget = SendBudget()
    async with start(texts(1000), budget) as (_, task):
        (job, *_) = await settled()
        job.start().part(Vector(0, bytes(4096), 1))
        assert budget.reserved_bytes >= 1000 * 1024 * 17
        assert not task.done()


async def test_no_memory_for_the_answer_ends_the_request(start, settled):
    budget = SendBudget()
    with Reservation(budget, FakeRequest()) as other:
        other.reserve(budget.client_limit_bytes - (1 << 20))
        async with start(texts(1000), budget) as (_, task):
            (job, *_) = await settled()
            job.start().part(Vector(0, bytes(4096), 1))
            with pytest.raises(Busy):
                await finished(task)


# over HTTP


@pytest.mark.slow
async def test_a_client_that_disconnects_cancels_all_pieces(connect, backend):
    _, writer = await connect()
    body = json.dumps({"model": "m", "input": texts(PIECE_INPUTS * 6)}).encode()
    writer.write(
        b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    writer.write(body)
    jobs = [await backend.job() for _ in range(PIECES_AT_ONCE)]
    jobs[0].start()
    writer.transport.abort()
    async with asyncio.timeout(DEADLINE_S):
        for job in jobs:
            await job.cancelled.wait()


async def test_tokens_are_counted_once_and_nothing_was_generated(session, url, backend, metrics):
    backend.script = answer
    body = {"model": "m", "input": texts(PIECE_INPUTS * 3)}
    async with session.post(f"{url}/api/embed", json=body) as response:
        assert (await response.json())["prompt_eval_count"] == 96
    shown = metrics.render(backend.snapshot()).decode()
    assert 'ollama_prompt_eval_total{model="m:latest"} 96.0' in shown
    assert 'ollama_eval_total{model="m:latest"} 0.0' in shown
    assert 'ollama_prompt_eval_duration_seconds_count{model="m:latest"} 1.0' in shown
    assert 'ollama_eval_duration_seconds_count{model="m:latest"}' not in shown
    assert 'ollama_time_to_first_token_seconds_count{model="m:latest"}' not in shown
