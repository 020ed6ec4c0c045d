"""Snapshots of loaded models and the queue.

Real processes are in ``tests/integration/test_pool_processes.py``.
"""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from ollama_async.workers.messages import Heartbeat
from tests.unit.workers.harness import DEADLINE_S, pool, turns


async def test_a_snapshot_shows_loaded_models_and_the_queue():
    async with pool(keep_alive_s=math.inf) as it:
        worker = await it.up(device_bytes=50)
        it.submit()
        it.submit()
        it.submit("b")
        worker.deliver(Heartbeat(1, 0.25))
        snapshot = it.pool.snapshot()
        assert (snapshot.queued, snapshot.capacity, snapshot.loading) == (1, 5, 1)
        assert snapshot.running == {"a:latest": 1, "b:latest": 1}
        [row] = snapshot.loaded
        assert (row.size, row.size_vram, row.num_ctx, row.slots) == (123, 50, 4096, 1)
        assert (row.running, row.busy_slots, row.cache_used) == (1, 1, 0.25)
        assert row.expires_at == math.inf


def shown_expiry(it):
    [row] = it.pool.snapshot().loaded
    return row.expires_at


async def test_the_expiry_is_constant_while_a_model_is_idle(monkeypatch):
    async with pool(keep_alive_s=300.0) as it:
        await it.up()
        first = shown_expiry(it)
        wall, loop = time.time(), asyncio.get_running_loop().time()
        # a quarter of a second by one clock may be more or less by the other
        monkeypatch.setattr(time, "time", lambda: wall + 0.25)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: loop + 0.24)
        assert shown_expiry(it) == first
        assert first == pytest.approx(wall + 300, abs=DEADLINE_S)


async def test_the_expiry_follows_a_clock_that_is_set(monkeypatch):
    async with pool(keep_alive_s=300.0) as it:
        await it.up()
        first, wall = shown_expiry(it), time.time()
        monkeypatch.setattr(time, "time", lambda: wall + 3600)
        assert shown_expiry(it) == pytest.approx(first + 3600, abs=DEADLINE_S)


async def test_the_expiry_of_a_busy_model_is_counted_from_its_last_use(monkeypatch):
    async with pool(keep_alive_s=300.0) as it:
        worker = await it.up()
        it.submit()
        clock = asyncio.get_running_loop()
        wall, loop = time.time(), clock.time()
        seen = []
        for later_s in (0, 100, 299, 301, 599, 601):
            monkeypatch.setattr(time, "time", lambda later_s=later_s: wall + later_s)
            monkeypatch.setattr(
                asyncio.get_running_loop(), "time", lambda later_s=later_s: loop + later_s
            )
            seen.append(shown_expiry(it))
            assert seen[-1] > wall + later_s
        assert seen == [seen[0]] * 3 + [seen[3]] * 2 + [seen[5]]
        assert (seen[3] - seen[0], seen[5] - seen[3]) == (pytest.approx(300), pytest.approx(300))
        worker.answer(*worker.submitted)
        await turns()
        assert shown_expiry(it) == pytest.approx(wall + 601 + 300, abs=1)


async def test_a_model_being_unloaded_is_shown_as_expired():
    async with pool() as it:
        await it.up()
        it.submit()
        await it.pool.unload("a")
        assert shown_expiry(it) == shown_expiry(it) < time.time()
