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
