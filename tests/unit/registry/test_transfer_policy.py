"""Retries, pauses, and connections that are too slow."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.registry.errors import PermanentError, TransientError
from ollama_async.registry.transfer_policy import (
    MIN_BYTES,
    MinimumThroughput,
    RetryPolicy,
    RetryState,
    retry,
    run_all,
)


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_grow_and_are_bounded(failures, jitter):
    policy = RetryPolicy()
    pause_s = policy.pause_s(failures, 0, jitter=jitter)
    assert 0.5 <= pause_s <= 30
    assert pause_s <= 2.0 ** (failures - 1)
    assert policy.pause_s(failures, 60, jitter=jitter) == 60


QUICK = RetryPolicy(attempts=3, first_pause_s=0)


async def test_what_fails_for_now_is_tried_again_but_not_for_ever():
    calls = []

    async def succeeds_at_last():
        calls.append(1)
        if len(calls) < 3:
            raise TransientError("not now")
        return "well"

    async def never():
        raise TransientError("not now")

    assert await retry(succeeds_at_last, QUICK) == "well"
    with pytest.raises(PermanentError, match=r"^max retries exceeded: not now$"):
        await retry(never, QUICK)


async def test_progress_resets_the_retries():
    tries = RetryState(QUICK)
    for _ in range(10):
        await tries.pause(TransientError("x"))
        await tries.pause(TransientError("x"))
        tries.progressed()
    for _ in range(2):
        await tries.pause(TransientError("x"))
    with pytest.raises(PermanentError):
        await tries.pause(TransientError("x"))


WINDOW_S = 30.0


def test_too_slow_transfers_are_detected():
    throughput = MinimumThroughput(WINDOW_S)
    for _ in range(30):
        throughput.received(1, 1.0)
    with pytest.raises(TransientError, match=r"^too slow: 31 bytes in 31 seconds$"):
        throughput.received(1, 1.0)


@given(st.lists(st.integers(MIN_BYTES, 1 << 20), min_size=1))
def test_who_brings_enough_in_time_may_go_on_for_ever(counts):
    throughput = MinimumThroughput(WINDOW_S)
    for count in counts:
        throughput.received(count // 2, WINDOW_S / 2)
        throughput.received(count - count // 2, WINDOW_S / 2)


@given(st.lists(st.tuples(st.integers(1, MIN_BYTES), st.floats(0, WINDOW_S)), min_size=1))
def test_whoever_goes_on_brought_enough(pieces):
    throughput, total_bytes, waited_s = MinimumThroughput(WINDOW_S), 0, 0.0
    try:
        for count, seconds in pieces:
            throughput.received(count, seconds)
            total_bytes += count
            waited_s += seconds
    except TransientError:
        return
    assert waited_s <= (total_bytes // MIN_BYTES + 1) * 2 * WINDOW_S


def test_without_a_limit_nothing_is_too_slow():
    throughput = MinimumThroughput(math.inf)
    for _ in range(10):
        throughput.received(1, 1e9)


async def test_the_first_failure_cancels_the_rest_and_is_raised_as_it_is():
    ended = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fails():
        await asyncio.sleep(0)
        raise TransientError("not now")

    with pytest.raises(TransientError, match=r"^not now$"):
        await run_all([waits(), fails(), waits()])
    assert ended == ["cancelled"] * 2


async def test_a_cancellation_cancels_all():
    began, ended = asyncio.Event(), []

    async def waits():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    task = asyncio.create_task(run_all([waits(), waits()]))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"] * 2
