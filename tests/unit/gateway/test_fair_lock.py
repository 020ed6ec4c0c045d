"""The order in which clients acquire a fair lock, whichever of them disconnect."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.gateway.concurrency import FairLock

DEADLINE_S = 10.0


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_client_with_many_requests_delays_another_by_one_of_them() -> None:
    lock, order, may_end = FairLock(), [], asyncio.Event()

    async def ask(client: str) -> None:
        async with lock.hold(client):
            order.append(client)
            await may_end.wait()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for client in ["a"] * 5 + ["b", "b", "c"]:
            group.create_task(ask(client))
        await settled()
        may_end.set()
    assert order == ["a", "a", "b", "c", "a", "b", "a", "a"]


@given(st.lists(st.tuples(st.sampled_from(["ask", "leave", "end"]), st.integers(0, 3))))
def test_one_waiter_holds_the_lock_while_any_wait(
    events: list[tuple[str, int]],
) -> None:
    async def history() -> None:
        lock = FairLock()
        tasks: list[asyncio.Task[None]] = []
        running: list[asyncio.Event] = []

        async def ask(client: str) -> None:
            async with lock.hold(client):
                may_end = asyncio.Event()
                running.append(may_end)
                try:
                    await may_end.wait()
                finally:
                    running.remove(may_end)

        for event, number in events:
            if event == "ask":
                tasks.append(asyncio.create_task(ask(str(number))))
            elif event == "leave" and tasks:
                tasks.pop(number % len(tasks)).cancel()
            elif event == "end" and running:
                running[0].set()
            if number:  # else the next event comes before this one has had its effect
                await settled()
                tasks = [task for task in tasks if not task.done()]
                assert len(running) == bool(tasks)
        async with asyncio.timeout(DEADLINE_S):
            while tasks:
                await settled()
                if running:
                    running[0].set()
                tasks = [task for task in tasks if not task.done()]
        await settled()
        async with asyncio.timeout(DEADLINE_S), lock.hold("last"):
            assert lock.waiting == 0

    asyncio.run(history())


async def test_a_waiter_cancelled_as_the_lock_is_passed_does_not_get_it() -> None:
    lock, may_end = FairLock(), asyncio.Event()

    async def ask(client: str) -> str:
        async with lock.hold(client):
            await may_end.wait()
        return client

    first, leaving, last = (asyncio.create_task(ask(client)) for client in "abc")
    await settled()
    may_end.set()
    leaving.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait({first, leaving, last})
    assert leaving.cancelled()
    assert (first.result(), last.result()) == ("a", "c")
