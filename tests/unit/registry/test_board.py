"""Statuses for readers who come late, read slowly or leave."""

import asyncio

import pytest

from ollama_async.core.errors import NotFound
from ollama_async.registry import transfers as board_module
from ollama_async.registry.transfers import Board


def progress(completed, digest="sha256:a"):
    return {"status": "pulling a", "digest": digest, "total": 9, "completed": completed}


async def all_of(board):
    async with asyncio.timeout(10):
        return [status async for status in board.follow()]


async def test_a_latecomer_is_told_the_newest_of_every_line_in_order():
    board = Board()
    for status in ({"status": "begin"}, progress(1), progress(9), {"status": "end"}):
        board.post(status)
    board.end()
    assert await all_of(board) == [{"status": "begin"}, progress(9), {"status": "end"}]


async def test_a_reader_who_looks_seldom_gets_the_last_state_only(monkeypatch):
    monkeypatch.setattr(board_module, "PERIOD_S", 3600)
    board = Board()
    board.post(progress(0))
    reading = asyncio.create_task(all_of(board))
    await asyncio.sleep(0)
    for completed in range(1, 10):
        board.post(progress(completed))
        await asyncio.sleep(0)
    board.end()
    assert await reading == [progress(0), progress(9)]


async def test_readers_do_not_take_each_other_s_news(monkeypatch):
    monkeypatch.setattr(board_module, "PERIOD_S", 0)
    board = Board()
    first, second = board.follow(), board.follow()
    for completed in range(3):
        board.post(progress(completed))
        async with asyncio.timeout(10):
            assert await anext(first) == progress(completed)
            assert await anext(second) == progress(completed)
    await first.aclose()
    await second.aclose()


async def test_every_reader_gets_the_error_of_its_own():
    board = Board()
    reading = [asyncio.create_task(all_of(board)) for _ in range(2)]
    await asyncio.sleep(0)
    board.end(NotFound("gone"))
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert [(type(each), each.message) for each in results] == [(NotFound, "gone")] * 2
    assert results[0] is not results[1]


async def test_an_error_comes_after_the_last_line():
    board = Board()
    board.post({"status": "begin"})
    board.end(NotFound("gone"))
    statuses = board.follow()
    assert await anext(statuses) == {"status": "begin"}
    with pytest.raises(NotFound):
        await anext(statuses)
