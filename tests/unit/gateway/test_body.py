"""Work on large bodies: few at a time, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ollama_async.core.errors import Busy
from ollama_async.gateway import body
from ollama_async.gateway.body import RequestBodies
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
    assert (
        await RequestBodies().work(A, 10, lambda: threading.current_thread().name) == "MainThread"
    )


@pytest.mark.parametrize("size", SIZES)
async def test_who_leaves_frees_the_place_of_its_thread_only_when_that_is_done(held, size):
    bodies = RequestBodies()
    leaving = asyncio.create_task(bodies.work(A, size, held))
    await held.begun()
    leaving.cancel()
    next_one = asyncio.create_task(bodies.work(A, size, lambda: held.running))
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
    bodies = RequestBodies()
    very_large = asyncio.create_task(bodies.work(A, SIZES[1], held))
    await held.begun()

    async with asyncio.timeout(DEADLINE_S):
        assert await bodies.work(A, SIZES[0], lambda: held.running) == 1

    held.let_go()
    assert await very_large != "MainThread"


async def test_who_leaves_the_line_was_never_in_it(held):
    bodies = RequestBodies()
    first = asyncio.create_task(bodies.work(A, SIZES[0], held))
    await held.begun()
    waiting = asyncio.create_task(bodies.work(A, SIZES[0], held))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.let_go()
    assert await first != "MainThread"


async def test_a_client_with_many_bodies_holds_up_another_for_one_of_them(held):
    bodies, order = RequestBodies(), []
    first = asyncio.create_task(bodies.work(A, SIZES[1], held))
    await held.begun()
    later = [
        asyncio.create_task(bodies.work(client, SIZES[1], order.append, client))
        for client in (A, A, A, B)
    ]
    for _ in range(10):
        await asyncio.sleep(0)
    held.let_go()

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(first, *later)
    assert order == [A, B, A, A]


async def test_a_body_is_held_until_its_thread_is_done(session, url, monkeypatch):
    """The client leaves while its body is decoded; another large one is refused until then."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(_parts, kind):
        begun.set()
        assert may_end.wait(DEADLINE_S)
        return kind()

    monkeypatch.setattr(body, "_decode", slow)
    monkeypatch.setattr(body, "BODIES_LIMIT_BYTES", 1_000_000)
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


def test_one_client_does_not_hold_what_others_need(monkeypatch):
    monkeypatch.setattr(body, "BODIES_LIMIT_BYTES", 1_000)
    monkeypatch.setattr(body, "CLIENT_BODIES_LIMIT_BYTES", 500)
    bodies = RequestBodies()
    one, another, other = FakeRequest(A), FakeRequest(A), FakeRequest(B)
    bodies.hold(one, 500)
    with pytest.raises(Busy):
        bodies.hold(another, 1)

    bodies.hold(other, 500)
    bodies.release(one)
    bodies.release(one)
    bodies.hold(another, 500)

    for request in (another, other):
        bodies.release(request)
    assert not bodies._held_by
