"""One client that takes more than its share: of the queue, the cores, the loads."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer

BUSY = "server busy, please try again.  maximum pending requests exceeded"
SLOW = {"tokens": ["tick "], "repeat": True, "tokens_per_second": 20, "slots": 1}
QUICK = {"tokens": ["tick "], "repeat": True, "slots": 2}

pytestmark = pytest.mark.slow


def client(server: RunningServer, address: str = "127.0.0.1") -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=limits)
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=LONG_WAIT_S)


async def ask(
    http: httpx.AsyncClient, model: str, tokens: int = 2, **options: object
) -> httpx.Response:
    body = {"model": model, "prompt": "go", "stream": False}
    options["num_predict"] = tokens
    return await http.post("/api/generate", json={**body, "options": options})


async def test_one_address_cannot_keep_the_others_out_of_a_full_queue(start_server):
    server = start_server(scripts={"slow": SLOW}, OLLAMA_MAX_QUEUE="8")
    async with client(server, "127.0.0.2") as greedy, client(server, "127.0.0.3") as modest:
        await ask(modest, "slow", 1)
        flood = [asyncio.ensure_future(ask(greedy, "slow", 8)) for _ in range(40)]
        await server.eventually("ollama_requests_queued", 8)
        answers = await asyncio.gather(*(ask(modest, "slow", 1) for _ in range(3)))
        assert server.metric("ollama_requests_queued") <= 8
        lost = [done.result() for done in flood if done.done()]
        for left in flood:
            left.cancel()

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len(lost) >= 34, "three of those that waited had to go"
    refused = [answer for answer in lost if answer.status_code == 503]
    assert {answer.json()["error"] for answer in refused} == {BUSY}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)


async def test_a_context_that_grows_token_by_token_reloads_a_few_times_only(start_server):
    server = start_server(scripts={"quick": QUICK})
    async with client(server) as http:
        for num_ctx in range(4096, 4296):
            assert (await ask(http, "quick", num_ctx=num_ctx)).status_code == 200

    assert server.metric("ollama_model_loads_total") <= 3


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("num_thread", (1, 2)),
        ("num_gpu", (0, 1)),
        ("main_gpu", (0, 1)),
        ("use_mmap", (False, True)),
        ("num_batch", (1, 2)),
    ],
)
async def test_two_clients_whose_options_contradict_do_not_reload(start_server, option, values):
    server = start_server(scripts={"quick": QUICK})
    async with client(server, "127.0.0.2") as one, client(server, "127.0.0.3") as other:
        for _ in range(5):
            for http, value in zip((one, other), values, strict=True):
                assert (await ask(http, "quick", **{option: value})).status_code == 200

    assert server.metric("ollama_model_loads_total") == 1


async def test_a_request_for_thousands_of_threads_gets_none_of_them(demo_server):
    loads = demo_server.metric("ollama_model_loads_total")
    async with client(demo_server) as http:
        await ask(http, "demo")
        (worker,) = demo_server.workers()
        before = worker.num_threads()
        answer = await ask(http, "demo", num_thread=4096)
        after = await ask(http, "demo")
        (worker,) = demo_server.workers()

    assert [answer.status_code, after.status_code] == [200, 200]
    assert worker.num_threads() <= before + 1
    assert demo_server.metric("ollama_model_loads_total") == loads


async def test_two_models_of_one_file_do_not_reload_it_in_turn(demo_server):
    loads = demo_server.metric("ollama_model_loads_total")
    async with client(demo_server) as http:
        for name, parameters in (("one", {"num_thread": 1}), ("two", {"use_mmap": False})):
            body = {"model": name, "from": "demo", "parameters": parameters, "stream": False}
            assert (await http.post("/api/create", json=body)).status_code == 200
        for _ in range(5):
            for name in ("one", "two"):
                assert (await ask(http, name)).status_code == 200

    assert demo_server.metric("ollama_model_loads_total") - loads <= 1
