"""An idle server holds no more after thousands of requests than after a hundred."""

from __future__ import annotations

import asyncio
import random
import resource

import aiohttp
import psutil
import pytest

STORY = {"tokens": ["one ", "two "], "repeat": True, "slots": 4}
CLIENTS = 8
GROWTH_LIMIT_BYTES = 6 << 20
"""Allocators keep some of what was in use at once; a leak of 3 KiB for each request is more."""


async def ask_many(server, count: int) -> None:
    """Streamed and whole answers; each tenth client leaves before the end."""
    dice = random.Random(count)
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> None:
            is_leaving = dice.random() < 0.1
            body = {
                "model": "story",
                "prompt": f"go {number}",
                "stream": is_leaving or dice.random() < 0.7,
                "options": {"num_predict": 1_000_000 if is_leaving else 4},
            }
            async with session.post(f"{server.url}/api/generate", json=body) as answer:
                assert answer.status == 200
                if is_leaving:
                    await answer.content.readline()
                    answer.close()
                else:
                    assert b'"done":true' in await answer.read()

        for begin in range(0, count, CLIENTS):
            await asyncio.gather(*map(ask, range(begin, begin + CLIENTS)))
    await server.eventually("ollama_requests_running", 0)


def held(process: psutil.Process) -> tuple[int, int]:
    """Descriptors, and bytes that belong to nobody else."""
    return process.num_fds(), process.memory_full_info().uss


@pytest.mark.slow
async def test_thousands_of_requests_leave_nothing_in_the_gateway(start_server):
    server = start_server(scripts={"story": STORY})
    await ask_many(server, 100)
    descriptors, memory = held(server.process)

    await ask_many(server, 2_000)

    server.wait_until(lambda: server.process.num_fds() <= descriptors, "back to its descriptors")
    assert held(server.process)[1] - memory < GROWTH_LIMIT_BYTES


@pytest.mark.slow
async def test_models_that_come_and_go_leave_nothing_in_the_gateway(start_server):
    server = start_server(scripts={f"story-{number}": STORY for number in range(3)})

    async def load_and_unload(count: int) -> None:
        async with aiohttp.ClientSession() as session:
            for number in range(count):
                body = {
                    "model": f"story-{number % 3}",
                    "prompt": "go",
                    "stream": False,
                    "keep_alive": 0,
                    "options": {"num_predict": 1},
                }
                async with session.post(f"{server.url}/api/generate", json=body) as answer:
                    assert answer.status == 200
        await server.eventually("ollama_models_loaded", 0)

    await load_and_unload(6)
    server.wait_until(lambda: not server.workers(), "without workers")
    descriptors, memory = held(server.process)

    await load_and_unload(60)

    server.wait_until(lambda: not server.workers(), "without workers")
    server.wait_until(lambda: server.process.num_fds() <= descriptors, "back to its descriptors")
    assert held(server.process)[1] - memory < GROWTH_LIMIT_BYTES


def test_the_server_may_open_as_many_files_as_the_system_lets_it(start_server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
    try:
        server = start_server(scripts={"story": STORY})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert server.process.rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
