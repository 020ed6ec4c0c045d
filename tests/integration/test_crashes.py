"""A worker that dies costs its own requests and nothing else."""

import asyncio
import json
import signal
from pathlib import Path

import httpx
import pytest

STORY = {"tokens": ["one ", "two ", "three "], "repeat": True, "tokens_per_second": 20}


def body(tokens: int, **more):
    return {"model": "story", "prompt": "go", "options": {"num_predict": tokens}, **more}


async def test_killing_the_worker_ends_the_answer_with_an_error_line(start_server):
    server = start_server(scripts={"story": STORY})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        async with http.stream("POST", "/api/generate", json=body(1000)) as answer:
            lines = answer.aiter_lines()
            assert json.loads(await anext(lines))["response"]
            (worker,) = server.workers()
            worker.kill()
            rest = [json.loads(line) async for line in lines]
        after = await http.post("/api/generate", json=body(2, stream=False))

    assert "error" in rest[-1]
    assert not any(line.get("done") for line in rest)
    assert after.json()["response"] == "one two "
    assert server.metric("ollama_worker_restarts_total") == 1


def print_as(worker, text):
    Path(f"/proc/{worker.pid}/fd/2").write_text(text)


@pytest.mark.parametrize(
    ("number", "said", "words"),
    [
        (signal.SIGABRT, "x.cpp:7: GGML_ASSERT(n > 0) failed", "(SIGABRT): {said}"),
        (signal.SIGABRT, "", "(SIGABRT)"),
        (signal.SIGKILL, "", "(out of memory?)"),
    ],
)
async def test_an_error_says_what_the_worker_said_about_its_death(
    start_server, number, said, words
):
    server = start_server(scripts={"story": STORY})
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        http.stream("POST", "/api/generate", json=body(1000)) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        (worker,) = server.workers()
        print_as(worker, f"INFO 1 request failed\n{said}\n")
        worker.send_signal(number)
        rest = [json.loads(line) async for line in lines]

    assert rest[-1]["error"].endswith(words.format(said=said))
    assert f"{words.format(said=said)}\n" in server.log


async def test_a_request_that_makes_a_worker_abort_kills_no_second_one(start_server):
    server = start_server(scripts={"story": {**STORY, "prompt_tokens_per_second": 10}})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        long_prompt = {**body(1), "prompt": "word " * 1000}
        asking = asyncio.ensure_future(http.post("/api/generate", json=long_prompt))
        await server.eventually("ollama_busy_slots", 1)
        (worker,) = server.workers()
        worker.send_signal(signal.SIGABRT)
        answer = await asking

    assert answer.status_code == 500
    assert server.metric("ollama_worker_restarts_total") == 1
    assert server.metric("ollama_model_loads_total") == 1


async def test_an_answer_without_a_byte_sent_is_begun_again(start_server, tmp_path):
    marker = tmp_path / "crashed"
    script = {**STORY, "crash_at": 2, "crash_once_file": str(marker)}
    server = start_server(scripts={"story": script})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        answer = await http.post("/api/generate", json=body(4, stream=False))

    assert answer.status_code == 200
    assert answer.json()["response"] == "one two three one "
    assert marker.exists()


async def test_a_worker_that_always_crashes_is_not_retried_for_ever(start_server):
    server = start_server(scripts={"story": {**STORY, "crash_at": 1}, "fine": STORY})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        broken = await http.post("/api/generate", json=body(4, stream=False))
        fine = await http.post("/api/generate", json={**body(1, stream=False), "model": "fine"})

    assert broken.status_code == 500
    assert "model runner has unexpectedly stopped" in broken.json()["error"]
    assert fine.status_code == 200


async def test_a_load_that_fails_says_why_and_the_next_request_tries_again(start_server):
    server = start_server(scripts={"story": {**STORY, "load_error": "out of cheese"}})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        answers = [await http.post("/api/generate", json=body(1)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert "out of cheese" in answers[0].json()["error"]
    assert server.metric("ollama_model_loads_total", outcome="failed") == 2


async def test_a_client_that_leaves_frees_its_slot(start_server):
    server = start_server(scripts={"story": {**STORY, "slots": 1}})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        async with http.stream("POST", "/api/generate", json=body(100_000)) as answer:
            await anext(answer.aiter_lines())
        after = await http.post("/api/generate", json=body(1, stream=False))

    assert after.status_code == 200
    assert server.metric("ollama_requests_cancelled_total") >= 1


async def test_a_client_that_leaves_in_a_long_prompt_frees_its_slot(start_server):
    slow = {**STORY, "slots": 1, "prompt_tokens_per_second": 10}
    server = start_server(scripts={"story": slow})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        long_prompt = {**body(1), "prompt": "word " * 1000}  # more than a minute of reading
        leaving = asyncio.ensure_future(http.post("/api/generate", json=long_prompt))
        await server.eventually("ollama_busy_slots", 1)
        leaving.cancel()
        after = await http.post("/api/generate", json=body(1, stream=False))

    assert after.status_code == 200
    assert server.metric("ollama_requests_cancelled_total", phase="prefill") == 1


async def test_sigterm_lets_a_running_answer_finish_and_leaves_nothing_behind(start_server):
    server = start_server(scripts={"story": STORY}, OLLAMA_SHUTDOWN_GRACE="20s")
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        async with http.stream("POST", "/api/generate", json=body(20)) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            status = asyncio.get_running_loop().run_in_executor(None, server.stop)
            rest = [json.loads(line) async for line in lines]

        assert rest[-1]["done_reason"] == "length"
        assert await status == 0


async def test_sigterm_cuts_an_answer_that_outlasts_the_grace(start_server):
    server = start_server(scripts={"story": STORY}, OLLAMA_SHUTDOWN_GRACE="100ms")
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        async with http.stream("POST", "/api/generate", json=body(1_000_000)) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            status = asyncio.get_running_loop().run_in_executor(None, server.stop)
            rest = [json.loads(line) async for line in lines]

        assert "error" in rest[-1]
        assert await status == 0


def test_a_worker_that_ignores_sigterm_is_killed(start_server):
    server = start_server(scripts={"story": {**STORY, "ignore_sigterm": True}})
    httpx.post(f"{server.url}/api/generate", json={"model": "story"}, timeout=30)
    assert len(server.workers()) == 1

    assert server.stop() == 0


def test_a_killed_server_takes_its_workers_along(start_server):
    server = start_server(scripts={"story": STORY})
    httpx.post(f"{server.url}/api/generate", json={"model": "story"}, timeout=30)
    (worker,) = server.workers()

    server.process.kill()
    server.process.wait(10)

    worker.wait(10)


def test_sigint_ends_the_server_as_well(start_server):
    server = start_server(scripts={"story": STORY})

    assert server.stop(signal.SIGINT) == 0
