"""SIGTERM ends the server with status 0 and leaves nothing behind, whatever it is doing."""

from __future__ import annotations

import asyncio
import json
import signal

import aiohttp
import pytest

WORDS = {"tokens": ["one ", "two "], "repeat": True, "tokens_per_second": 20, "slots": 1}


async def ask(session: aiohttp.ClientSession, url: str) -> dict:
    """The last object of an endless answer, or the error in its place."""
    body = {"model": "story", "prompt": "go", "options": {"num_predict": 1_000_000}}
    async with session.post(f"{url}/api/generate", json=body) as answer:
        return [json.loads(line) async for line in answer.content][-1]


def stop_worker(server) -> None:
    [worker] = server.workers()
    worker.suspend()


STATES = {
    "loading": ({"load_seconds": 60}, 1, "ollama_models_loading", None),
    "running": ({}, 1, "ollama_busy_slots", None),
    "with_a_full_queue": ({}, 3, "ollama_requests_queued", None),
    "with_a_hanging_engine": ({"hang_at": 0}, 1, "ollama_models_loaded", None),
    "with_a_stopped_worker": ({}, 1, "ollama_busy_slots", stop_worker),
    "with_a_stopped_loading_worker": (
        {"load_seconds": 60},
        1,
        "ollama_models_loading",
        stop_worker,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
async def test_sigterm_ends_a_server_that_is(start_server, state):
    script, count, metric, make_worse = STATES[state]
    server = start_server(
        scripts={"story": {**WORDS, **script}}, OLLAMA_MAX_QUEUE="2", OLLAMA_SHUTDOWN_GRACE="100ms"
    )
    async with aiohttp.ClientSession() as session:
        asked = [asyncio.ensure_future(ask(session, server.url)) for _ in range(count)]
        await server.eventually(metric, max(1, count - 1))
        server.wait_until(lambda: len(server.workers()) == 1, "saw its worker")
        if make_worse:
            make_worse(server)
        status = await asyncio.get_running_loop().run_in_executor(None, server.stop)
        ends = await asyncio.gather(*asked)

    assert status == 0
    assert all(set(end) == {"error"} for end in ends)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_when_all_is_done_changes_nothing(start_server, number):
    server = start_server(scripts={"story": WORDS})
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("INFO ollama_async: stopped")

    assert server.stop(number) == 0
    assert "Traceback" not in server.log
