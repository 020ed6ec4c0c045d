"""Concurrent callers share one run, whichever of them leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.gateway.concurrency import SingleFlight

DEADLINE_S = 10.0


class Work:
    """Counts its runs; each lasts until the test lets it end."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        return number


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def flights() -> AsyncIterator[SingleFlight]:
    flights = SingleFlight()
    yield flights
    await flights.close()


Caller = Callable[[], Awaitable[int]]


async def test_late_callers_share_the_next_run(flights: SingleFlight) -> None:
    work = Work()
    first = asyncio.create_task(flights.run("k", work))
    await settled()
    late = [asyncio.create_task(flights.run("k", work)) for _ in range(20)]
    await settled()
    assert work.begun == 1
    work.gate.set()
    async with asyncio.timeout(DEADLINE_S):
        assert await first == 1
        assert await asyncio.gather(*late) == [2] * 20
        assert await flights.run("k", work) == 3


async def test_concurrent_callers_share_the_first_run(flights: SingleFlight) -> None:
    work = Work()
    work.gate.set()
    assert await asyncio.gather(*(flights.run("k", work) for _ in range(5))) == [1] * 5


async def test_other_keys_are_other_runs(flights: SingleFlight) -> None:
    work = Work()
    work.gate.set()
    assert sorted(await asyncio.gather(*(flights.run(key, work) for key in "ab"))) == [1, 2]


async def test_a_cancelled_caller_cancels_the_run_only_if_it_is_the_last(
    flights: SingleFlight,
) -> None:
    work = Work()
    callers = [asyncio.create_task(flights.run("k", work)) for _ in range(3)]
    await settled()
    for caller in callers[:2]:
        caller.cancel()
    await settled()
    assert (work.running, work.cancelled) == (1, 0)
    callers[2].cancel()
    await settled()
    assert (work.running, work.cancelled) == (0, 1)


async def test_a_failure_reaches_all_callers(flights: SingleFlight) -> None:
    work = Work()
    work.failure = ValueError("no")
    work.gate.set()
    found = await asyncio.gather(
        *(flights.run("k", work) for _ in range(3)), return_exceptions=True
    )
    assert [str(each) for each in found] == ["no"] * 3


async def test_close_waits_for_running_work() -> None:
    flights, work = SingleFlight(), Work()
    caller = asyncio.create_task(flights.run("k", work))
    await settled()
    await flights.close()
    assert (work.running, work.cancelled) == (0, 1)
    await asyncio.wait({caller})


@given(st.lists(st.sampled_from(["ask", "leave", "pass", "settle"]), max_size=30))
def test_runs_do_not_overlap_and_callers_get_one_that_began_after_their_call(
    events: list[str],
) -> None:
    async def history() -> None:
        flights, work = SingleFlight(), Work()
        callers: list[tuple[int, asyncio.Task[int]]] = []

        async def ask() -> int:
            return await flights.run("k", work)

        for event in events:
            if event == "ask":
                callers.append((work.begun, asyncio.create_task(ask())))
                await asyncio.sleep(0)
            elif event == "leave" and callers:
                callers.pop(0)[1].cancel()
            elif event == "pass":
                work.gate.set()
                await settled()
                work.gate.clear()
            else:
                await settled()
            assert work.running <= 1
        work.gate.set()
        for begun, caller in callers:
            async with asyncio.timeout(DEADLINE_S):
                assert await caller > begun
        await flights.close()

    asyncio.run(history())


async def test_a_caller_cancelled_as_the_previous_run_ends_leaves_nothing_behind(
    flights: SingleFlight,
) -> None:
    may_end = asyncio.Event()
    late: list[asyncio.Task[None]] = []

    async def work() -> None:
        await may_end.wait()
        asyncio.get_running_loop().call_soon(late[0].cancel)

    first = asyncio.create_task(flights.run("k", work))
    await settled()
    late.append(asyncio.create_task(flights.run("k", work)))
    await settled()
    may_end.set()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait({first, *late})
    await settled()

    assert late[0].cancelled()
    assert not flights._last
