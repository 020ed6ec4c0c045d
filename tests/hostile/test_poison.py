"""Requests that kill the worker they run on, among others that do not."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer

POISON = "poison"
WEAK = {
    "tokens": ["one ", "two "],
    "repeat": True,
    "tokens_per_second": 50,
    "slots": 8,
    "crash_on": POISON,
}

pytestmark = pytest.mark.slow


async def ask(http: httpx.AsyncClient, prompt: str, tokens: int = 5) -> int:
    body = {"model": "weak", "prompt": prompt, "stream": False}
    answer = await http.post("/api/generate", json={**body, "options": {"num_predict": tokens}})
    return answer.status_code


def client(server: RunningServer, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=LONG_WAIT_S)


async def load(server: RunningServer, http: httpx.AsyncClient) -> None:
    await http.post("/api/generate", json={"model": "weak"})
    await server.eventually("ollama_models_loaded", 1)


@pytest.mark.parametrize("poisons", [1, 2])
async def test_of_a_batch_that_dies_only_the_poison_fails(start_server, poisons):
    server = start_server(scripts={"weak": WEAK})
    async with client(server) as http:
        await load(server, http)
        prompts = ["fine"] * (8 - poisons) + [POISON] * poisons
        statuses = await asyncio.gather(*(ask(http, prompt, 20) for prompt in prompts))

    assert statuses == [200] * (8 - poisons) + [500] * poisons
    assert server.metric("ollama_worker_restarts_total") == 1 + poisons


async def test_a_poisoner_is_refused_after_a_while_and_the_others_are_served(start_server):
    server = start_server(scripts={"weak": WEAK})
    async with client(server, "127.0.0.2") as evil, client(server, "127.0.0.3") as good:
        await load(server, good)
        for _ in range(4):
            mixed = [ask(evil, POISON), ask(good, "fine"), ask(good, "fine")]
            statuses = await asyncio.gather(*mixed)
            assert statuses == [500, 200, 200]
        deaths = server.metric("ollama_worker_restarts_total")
        refused = [await ask(evil, POISON) for _ in range(8)]
        assert await ask(good, "fine") == 200

    assert refused == [500] * 8
    assert deaths <= 8
    assert server.metric("ollama_worker_restarts_total") <= 10, "not one for each"


async def test_a_suspect_whose_client_leaves_costs_the_others_nothing(start_server):
    server = start_server(scripts={"weak": WEAK})
    async with client(server) as http:
        await load(server, http)
        leaving = asyncio.ensure_future(ask(http, "fine", 100_000))
        others = [asyncio.ensure_future(ask(http, "fine", 50)) for _ in range(2)]
        await server.eventually("ollama_busy_slots", 3)
        assert await ask(http, POISON) == 500
        leaving.cancel()
        statuses = await asyncio.gather(*others)

    assert statuses == [200, 200]


async def test_a_shutdown_under_poison_leaves_nothing(start_server):
    server = start_server(scripts={"weak": WEAK}, OLLAMA_SHUTDOWN_GRACE="100ms")
    async with client(server) as http:
        await load(server, http)
        asking = [ask(http, prompt, 10_000) for prompt in ["fine"] * 4 + [POISON]]
        answers = asyncio.gather(*asking, return_exceptions=True)
        await server.eventually("ollama_worker_restarts_total", 1)
        status = await asyncio.to_thread(server.stop)
        ends = await answers

    assert status == 0
    assert {end for end in ends if isinstance(end, int)} <= {500, 503}
