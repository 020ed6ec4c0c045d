"""Statuses for readers who come late, read slowly or leave."""

import asyncio

import pytest

from ollama_async.core.errors import NotFound
from ollama_async.registry import transfers
from ollama_async.registry.transfers import ProgressBroadcast


def progress(completed, digest="sha256:a"):
    return {"status": "pulling a", "digest": digest, "total": 9, "completed": completed}


async def all_of(broadcast):
    async with asyncio.timeout(10):
        return [status async for status in broadcast.follow()]


async def test_a_late_follower_receives_the_latest_of_each_status_in_order():
    broadcast = ProgressBroadcast()
    for status in ({"status": "begin"}, progress(1), progress(9), {"status": "end"}):
        broadcast.post(status)
    broadcast.end()
    assert await all_of(broadcast) == [{"status": "begin"}, progress(9), {"status": "end"}]


async def test_a_reader_who_looks_seldom_gets_the_last_state_only(monkeypatch):
    monkeypatch.setattr(transfers, "UPDATE_INTERVAL_S", 3600)
    broadcast = ProgressBroadcast()
    broadcast.post(progress(0))
    reading = asyncio.create_task(all_of(broadcast))
    await asyncio.sleep(0)
    for completed in range(1, 10):
        broadcast.post(progress(completed))
        await asyncio.sleep(0)
    broadcast.end()
    assert await reading == [progress(0), progress(9)]


async def test_readers_do_not_take_each_other_s_news(monkeypatch):
    monkeypatch.setattr(transfers, "UPDATE_INTERVAL_S", 0)
    broadcast = ProgressBroadcast()
    first, second = broadcast.follow(), broadcast.follow()
    for completed in range(3):
        broadcast.post(progress(completed))
        async with asyncio.timeout(10):
            assert await anext(first) == progress(completed)
            assert await anext(second) == progress(completed)
    await first.aclose()
    await second.aclose()


async def test_every_reader_gets_the_error_of_its_own():
    broadcast = ProgressBroadcast()
    reading = [asyncio.create_task(all_of(broadcast)) for _ in range(2)]
    await asyncio.sleep(0)
    broadcast.end(NotFound("gone"))
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert [(type(each), each.message) for each in results] == [(NotFound, "gone")] * 2
    assert results[0] is not results[1]


async def test_an_error_comes_after_the_last_line():
    broadcast = ProgressBroadcast()
    broadcast.post({"status": "begin"})
    broadcast.end(NotFound("gone"))
    statuses = broadcast.follow()
    assert await anext(statuses) == {"status": "begin"}
    with pytest.raises(NotFound):
        await anext(statuses)
