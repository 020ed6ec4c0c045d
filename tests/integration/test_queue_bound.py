"""``OLLAMA_MAX_QUEUE`` bounds what waits, whatever the model's state."""

import asyncio

import httpx
import pytest

BUSY = "server busy, please try again.  maximum pending requests exceeded"
SLOW = {"tokens": ["tick "], "repeat": True, "tokens_per_second": 20, "slots": 1}


async def ask(client: httpx.AsyncClient, tokens: int = 10) -> httpx.Response:
    return await client.post(
        "/api/generate",
        json={
            "model": "slow",
            "prompt": "go",
            "stream": False,
            "options": {"num_predict": tokens},
        },
    )


@pytest.fixture
def client():
    def make(server):
        return httpx.AsyncClient(base_url=server.url, timeout=30)

    return make


async def test_one_slot_and_a_queue_of_one_serve_two_of_six_and_refuse_four(start_server, client):
    server = start_server(scripts={"slow": SLOW}, OLLAMA_MAX_QUEUE="1")
    async with client(server) as http:
        await http.post("/api/generate", json={"model": "slow"})

        answers = await asyncio.gather(*(ask(http) for _ in range(6)))

    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert (len(served), len(refused)) == (2, 4)
    assert {answer.json()["error"] for answer in refused} == {BUSY}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert all(answer.json()["response"] == "tick " * 10 for answer in served)
    assert server.metric("ollama_queue_rejected_total", reason="full") == 4


async def test_a_queue_of_none_serves_the_request_that_loads_the_model(start_server, client):
    server = start_server(scripts={"slow": {**SLOW, "load_seconds": 0.2}}, OLLAMA_MAX_QUEUE="0")
    async with client(server) as http:
        first, second = await asyncio.gather(ask(http, 2), ask(http, 2))
        third = await ask(http, 2)

    assert sorted([first.status_code, second.status_code]) == [200, 503]
    assert third.status_code == 200


async def test_refusals_come_while_the_server_is_busy_not_after(start_server, client):
    server = start_server(scripts={"slow": SLOW}, OLLAMA_MAX_QUEUE="0")
    async with client(server) as http:
        running = asyncio.ensure_future(ask(http, 40))
        await server.eventually("ollama_requests_running", 1)
        await server.eventually("ollama_models_loaded", 1)

        refused = await ask(http, 1)

        assert refused.status_code == 503
        assert not running.done()
        assert (await running).status_code == 200


async def test_a_client_that_leaves_frees_its_place_in_the_queue(start_server, client):
    server = start_server(scripts={"slow": SLOW}, OLLAMA_MAX_QUEUE="1")
    async with client(server) as http:
        running = asyncio.ensure_future(ask(http, 60))
        await server.eventually("ollama_requests_running", 1)
        leaving = asyncio.ensure_future(ask(http, 1))
        await server.eventually("ollama_requests_queued", 1)
        assert (await ask(http, 1)).status_code == 503
        leaving.cancel()
        await server.eventually("ollama_requests_queued", 0)
        staying = await ask(http, 1)
        first = await running

    assert (staying.status_code, first.status_code) == (200, 200)


async def test_one_greedy_client_does_not_starve_another(start_server):
    """Clients are told apart by address, and take turns."""
    server = start_server(scripts={"slow": {**SLOW, "tokens_per_second": 100}})
    order: list[str] = []

    async def ask_from(address: str, name: str, tokens: int = 10) -> None:
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(base_url=server.url, transport=transport, timeout=30) as http:
            assert (await ask(http, tokens)).status_code == 200
            order.append(name)

    first = asyncio.ensure_future(ask_from("127.0.0.2", "greedy", 100_000))
    await server.eventually("ollama_requests_running", 1)
    others = [asyncio.ensure_future(ask_from("127.0.0.2", "greedy")) for _ in range(7)]
    await server.eventually("ollama_requests_queued", 7)
    others.append(asyncio.ensure_future(ask_from("127.0.0.3", "modest")))
    await server.eventually("ollama_requests_queued", 8)
    first.cancel()  # only now does a place become free
    await asyncio.gather(*others)

    assert order.index("modest") <= 2
