"""Everything at once: many clients, little memory, models that misbehave, workers that are killed
and stopped, clients that leave. Whatever happens, every request ends, and the server is as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections import Counter

import aiohttp
import httpx
import psutil
import pytest

CHAOS_S = 15.0
CLIENTS = 24
MAX_QUEUE = 6
MAX_LOADED = 2
REQUEST_DEADLINE_S = 25.0

BLOWS = {"SIGKILL": 1, "SIGTERM": 1, "SIGSTOP": 1, "SIGSTOP SIGCONT": 1, "": 4}
"""Signals for a worker, and how likely they are."""

WORDS = {"tokens": ["one ", "two ", "three "], "repeat": True, "tokens_per_second": 200}
SCRIPTS = {
    **{f"steady-{number}": {**WORDS, "slots": 2} for number in range(6)},
    **{f"single-{number}": {**WORDS, "slots": 1} for number in range(3)},
    "sluggish": {**WORDS, "slots": 2, "load_seconds": 0.4},
    "refusing": {**WORDS, "load_error": "out of cheese"},
    "crashing": {**WORDS, "slots": 2, "crash_at": 12},
    "hanging": {**WORDS, "slots": 2, "hang_at": 12},
    "stubborn": {**WORDS, "slots": 1, "ignore_sigterm": True},
}


def seed() -> int:
    """Printed when the test fails; set CHAOS_SEED to play the same dice again."""
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))


class Crowd:
    """Clients that ask, wait, read half and leave. ``ends`` counts how their requests ended."""

    def __init__(self, server, dice: random.Random) -> None:
        self.server = server
        self.dice = dice
        self.ends: Counter[str] = Counter()

    async def live(self, session: aiohttp.ClientSession, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            end = await self._ask(session)
            self.ends[end] += 1
            if end.startswith("status"):
                await pause(self.dice.uniform(0.0, 0.2))

    async def _ask(self, session: aiohttp.ClientSession) -> str:
        dice = self.dice
        body = {
            "model": dice.choice(list(SCRIPTS)),
            "prompt": "go" if dice.random() < 0.9 else "",
            "stream": dice.random() < 0.7,
            "options": {
                "num_predict": dice.choice([1, 5, 20, 100]),
                "num_ctx": dice.choice([2048, 4096, 4096, 8192]),
            },
        }
        if dice.random() < 0.2:
            body["keep_alive"] = dice.choice([0, "100ms", -1])
        patience_s = dice.choice([0.01, 0.1, 0.5]) if dice.random() < 0.3 else REQUEST_DEADLINE_S
        try:
            async with asyncio.timeout(patience_s):
                return await self._hear(session, body)
        except TimeoutError:
            assert patience_s < REQUEST_DEADLINE_S, f"never ended: {body}; {self.server.log}"
            return "left"

    async def _hear(self, session: aiohttp.ClientSession, body: dict) -> str:
        async with session.post(f"{self.server.url}/api/generate", json=body) as answer:
            lines = [json.loads(line) async for line in answer.content]
        assert lines, "an answer without a word"
        *pieces, last = lines
        assert not any(piece.get("done") or "error" in piece for piece in pieces), lines
        if answer.status != 200:
            assert answer.status in {500, 503}, (answer.status, lines)
            assert last["error"]
            return f"status {answer.status}"
        if "error" in last:
            return "error line"
        assert last["done"], lines
        text = "".join(line.get("response", "") for line in lines)
        assert ("one two three " * 100).startswith(text), "not a text of this model"
        return "served"


async def torment(server, dice: random.Random, until: float) -> None:
    """Kill and stop workers; some of the stopped go on at once, the others hang."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        await pause(dice.uniform(0.05, 0.6))
        for worker in await asyncio.to_thread(server.workers):
            [blow] = dice.choices(list(BLOWS), list(BLOWS.values()))
            with contextlib.suppress(psutil.NoSuchProcess):
                for name in blow.split():
                    worker.send_signal(signal.Signals[name])


async def watch(server, session: aiohttp.ClientSession, until: float) -> int:
    """How many looks found the bounds kept."""
    loop = asyncio.get_running_loop()
    looks = 0
    while loop.time() < until:
        async with session.get(f"{server.url}/metrics") as answer:
            text = await answer.text()
        assert sample(text, "ollama_requests_queued") <= MAX_QUEUE
        assert sample(text, "ollama_models_loaded") <= MAX_LOADED
        looks += 1
        await pause(0.05)
    return looks


async def pause(seconds: float) -> None:
    """A client that thinks; nothing is waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()


def sample(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no {name} among the metrics")


def warm_up(server) -> None:
    httpx.post(f"{server.url}/api/generate", json={"model": "steady-0"}, timeout=30)
    unload_all(server)


def unload_all(server) -> None:
    for name in SCRIPTS:
        body = {"model": name, "keep_alive": 0}
        httpx.post(f"{server.url}/api/generate", json=body, timeout=30).raise_for_status()
    server.wait_until(lambda: not server.workers(), "without workers")


@pytest.mark.slow
async def test_whatever_happens_every_request_ends_and_nothing_is_left(start_server):
    number = seed()
    print(f"CHAOS_SEED={number}")  # noqa: T201  # shown when the test fails
    dice = random.Random(number)
    server = start_server(
        scripts=SCRIPTS,
        OLLAMA_MAX_QUEUE=str(MAX_QUEUE),
        OLLAMA_MAX_LOADED_MODELS=str(MAX_LOADED),
        OLLAMA_STALL_TIMEOUT="2s",
        OLLAMA_LOAD_TIMEOUT="5s",
    )
    await asyncio.to_thread(warm_up, server)
    descriptors = server.descriptors()
    crowd = Crowd(server, dice)
    until = asyncio.get_running_loop().time() + CHAOS_S
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as all_:
        all_.create_task(torment(server, dice, until))
        looks = all_.create_task(watch(server, session, until))
        for _ in range(CLIENTS):
            all_.create_task(crowd.live(session, until))

    print(crowd.ends)  # noqa: T201  # as above
    assert looks.result() > 10
    assert crowd.ends["served"] > 10
    await server.eventually("ollama_requests_queued", 0)
    await server.eventually("ollama_requests_running", 0)
    await asyncio.to_thread(unload_all, server)
    server.wait_until(lambda: server.descriptors() <= descriptors, "back to its descriptors")
    assert "Traceback" not in server.log
