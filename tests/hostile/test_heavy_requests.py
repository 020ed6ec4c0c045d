"""One client sends what takes long to prepare, another a plain question."""

from __future__ import annotations

import asyncio
import itertools
import time

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer

pytestmark = pytest.mark.slow

FLOOD = 24
"""Heavy requests at a time; each took seconds, one after the other."""

PATIENCE_S = 20.0
"""What a plain question may take beside them on a busy machine; it waited for 60 s and more."""

LOOP = "{{ range 1000 }}{{ range 1000 }}x{{ end }}{{ end }}{{ .Prompt }}"
_numbers = itertools.count()


def generate(**more):
    body = {"model": "demo", "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
    return "/api/generate", body | more


def chat(messages, **more):
    body = {"model": "demo", "messages": messages, "stream": False, "options": {"num_predict": 1}}
    return "/api/chat", body | more


def dates(count):
    """A schema that nobody has sent before."""
    names = [f"{next(_numbers)}" for _ in range(count)]
    field = {"type": "string", "format": "date-time"}
    return {"type": "object", "properties": dict.fromkeys(names, field), "required": names}


def tools():
    return [
        {
            "type": "function",
            "function": {"name": f"f{number}", "description": "x", "parameters": dates(30)},
        }
        for number in range(12)
    ]


HEAVY = {
    "templates": lambda: generate(template=f"{LOOP}{next(_numbers)}"),
    "schemas": lambda: generate(format=dates(300)),
    "tools": lambda: chat([{"role": "user", "content": "Hi"}], tools=tools()),
    "raw": lambda: generate(prompt=f"{next(_numbers)} some words " * 100_000, raw=True),
    "history": lambda: chat(
        [
            {"role": ("user", "assistant")[at % 2], "content": f"{next(_numbers)} words " * 3}
            for at in range(5001)
        ]
    ),
}


def client(server: RunningServer, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(
        local_address=address, limits=httpx.Limits(max_connections=FLOOD)
    )
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=LONG_WAIT_S)


async def flood(heavy: httpx.AsyncClient, makers) -> None:
    """Requests without end, until it is cancelled."""

    async def go_on(maker):
        while True:
            path, body = maker()
            await heavy.post(path, json=body)

    async with asyncio.TaskGroup() as group:
        for maker in itertools.islice(itertools.cycle(makers), FLOOD):
            group.create_task(go_on(maker))


async def ask_beside(server: RunningServer, makers, times: int = 8) -> list[float]:
    """How long plain questions of another client take."""
    took = []
    async with client(server, "127.0.0.2") as heavy, client(server, "127.0.0.3") as plain:
        flooding = asyncio.create_task(flood(heavy, makers))
        await asyncio.to_thread(
            server.wait_until,
            lambda: server.metric("ollama_requests_running") >= 4,
            "ran the heavy requests",
        )
        for _ in range(times):
            begun_s = time.monotonic()
            path, body = generate(prompt="Hello")
            (await plain.post(path, json=body)).raise_for_status()
            took.append(time.monotonic() - begun_s)
        assert not flooding.done(), flooding.exception()
        flooding.cancel()
        await asyncio.wait([flooding])
    return took


@pytest.mark.parametrize("kind", ["templates", "mixed"])
async def test_heavy_requests_of_one_client_do_not_hold_up_anothers_plain_one(demo_server, kind):
    makers = list(HEAVY.values()) if kind == "mixed" else [HEAVY[kind]]

    assert max(await ask_beside(demo_server, makers)) < PATIENCE_S
    assert len(demo_server.workers()) == 1


def post(server: RunningServer, request):
    path, body = request
    return httpx.post(server.url + path, json=body, timeout=LONG_WAIT_S)


def test_a_template_that_a_request_brings_is_interrupted_early(demo_server):
    refused = post(demo_server, generate(template=LOOP))

    assert refused.status_code == 400
    assert "takes too long" in refused.json()["error"]


def test_what_was_refused_once_is_refused_again(demo_server):
    bad = generate(format={"type": "string", "pattern": "("})
    first, again = post(demo_server, bad), post(demo_server, bad)

    assert first.status_code == again.status_code == 400
    assert first.json() == again.json()


async def test_requests_that_are_cancelled_while_they_are_prepared_leave_no_worker_behind(
    start_server,
):
    """Clients leave at any moment; a cancel that gets lost would leave its slot busy."""
    server = start_server(offers_shipped=True, OLLAMA_STALL_TIMEOUT="5s")
    post(server, generate())
    makers = itertools.cycle(HEAVY.values())
    async with client(server, "127.0.0.2") as heavy:
        for number in range(120):
            path, body = generate() if number % 2 else next(makers)()
            asking = asyncio.create_task(heavy.post(path, json=body))
            await asyncio.wait([asking], timeout=0.001 * (number % 12))
            asking.cancel()
            await asyncio.wait([asking])
    worker = server.workers()[0].pid

    await server.eventually("ollama_busy_slots", 0)
    await server.eventually("ollama_requests_running", 0)
    assert post(server, generate()).json()["done"]
    assert [process.pid for process in server.workers()] == [worker]
