"""Processing of large bodies: few at a time, whichever clients disconnect meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ollama_async.core.errors import Busy
from ollama_async.gateway import body
from ollama_async.gateway.body import BODY_PROCESSOR, BodyProcessor
from ollama_async.gateway.client_budgets import Reservation
from tests.unit.gateway.conftest import FakeRequest

DEADLINE_S = 10.0
A, B = "10.0.0.1", "10.0.0.2"
SIZES = [body.OFF_LOOP_BYTES + 1, body._VERY_LARGE_BYTES + 1]


class Held:
    """Calls that a test lets go on."""

    def __init__(self) -> None:
        self.running = 0
        self._may_end = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)

    def __call__(self) -> str:
        self.running += 1
        self._loop.call_soon_threadsafe(self._begun.release)
        assert self._may_end.wait(DEADLINE_S)
        self.running -= 1
        return threading.current_thread().name

    async def begun(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._begun.acquire()

    def let_go(self) -> None:
        self._may_end.set()


@pytest.fixture
async def held():
    held = Held()
    yield held
    held.let_go()


async def test_small_work_is_done_at_once():
    assert await BodyProcessor().run(A, 10, lambda: threading.current_thread().name) == "MainThread"


@pytest.mark.parametrize("size", SIZES)
async def test_a_cancelled_call_keeps_its_turn_until_its_thread_ends(held, size):
    processor = BodyProcessor()
    leaving = asyncio.create_task(processor.run(A, size, held))
    await held.begun()
    leaving.cancel()
    next_one = asyncio.create_task(processor.run(A, size, lambda: held.running))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not leaving.done()
    assert not next_one.done()

    held.let_go()

    async with asyncio.timeout(DEADLINE_S):
        assert await next_one == 0
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_a_large_body_does_not_wait_for_a_very_large_one(held):
    processor = BodyProcessor()
    very_large = asyncio.create_task(processor.run(A, SIZES[1], held))
    await held.begun()

    async with asyncio.timeout(DEADLINE_S):
        assert await processor.run(A, SIZES[0], lambda: held.running) == 1

    held.let_go()
    assert await very_large != "MainThread"


async def test_a_cancelled_waiter_leaves_the_queue(held):
    processor = BodyProcessor()
    first = asyncio.create_task(processor.run(A, SIZES[0], held))
    await held.begun()
    waiting = asyncio.create_task(processor.run(A, SIZES[0], held))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.let_go()
    assert await first != "MainThread"


async def test_a_client_with_many_bodies_delays_another_by_one_of_them(held):
    processor, order = BodyProcessor(), []
    first = asyncio.create_task(processor.run(A, SIZES[1], held))
    await held.begun()
    later = [
        asyncio.create_task(processor.run(client, SIZES[1], order.append, client))
        for client in (A, A, A, B)
    ]
    for _ in range(10):
        await asyncio.sleep(0)
    held.let_go()

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(first, *later)
    assert order == [A, B, A, A]


async def test_a_body_is_reserved_until_its_thread_ends(session, url, application, monkeypatch):
    """The client disconnects while its body is decoded; another large one is refused until then."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(_data, kind):
        begun.set()
        assert may_end.wait(DEADLINE_S)
        return kind(), {}

    monkeypatch.setattr(body, "decode_apart", slow)
    application[BODY_PROCESSOR].budget.limit_bytes = 1_000_000
    data = b'{"model":"m","prompt":"' + b"x" * 600_000 + b'"}'
    leaving = asyncio.create_task(session.post(url + "/api/generate", data=data))
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    leaving.cancel()

    async with session.post(url + "/api/generate", data=data) as refused:
        assert refused.status == 503
    may_end.set()

    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with session.post(url + "/api/generate", data=data) as response:
                if response.status != 503:
                    break
    assert response.status == 404


def test_one_client_cannot_reserve_all_bytes():
    budget = BodyProcessor().budget
    size = budget.free_bytes + 1
    budget.limit_bytes, budget.client_limit_bytes = 2 * size, size
    one, another, other = (Reservation(budget, FakeRequest(each)) for each in (A, A, B))
    with another, other:
        with one:
            one.reserve(size)
            with pytest.raises(Busy):
                another.reserve(size)
            other.reserve(size)
        another.reserve(size)
    assert budget.reserved_bytes == 0
