"""The gateway alone, with the scripted engine: the cost of a token, a first token, a rejection.

    python bench/gateway.py [--streams 1,8,64,256] [--seconds 5]

The scripted engine computes nothing, so the path worker process → ring → gateway → socket is
measured. Gateway and worker CPU times are the kernel's. The load generator shares the cores with
both, so saturated figures are a lower bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import load
import report
import uvloop

PIECE = "word "
PACE = 50


def scripts(folder: Path, streams: int) -> Path:
    """Models: ``fast`` (as fast as it goes), ``paced`` (50 tokens/s a stream), ``busy``."""
    base = {"tokens": [PIECE], "repeat": True, "slots": streams, "num_ctx": 1 << 30}
    path = folder / "scripts.json"
    path.write_text(
        json.dumps(
            {
                "fast": base,
                "paced": {**base, "tokens_per_second": PACE},
                "busy": {**base, "tokens_per_second": 1, "slots": 1},
            }
        )
    )
    return path


def body(model: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "go"}]
    return {"model": model, "messages": messages, "options": {"num_predict": tokens}}


def openai_body(model: str, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


BODIES = {"/api/chat": body, "/v1/chat/completions": openai_body}


async def run_streams(
    server: report.Server, model: str, streams: int, tokens: int, path: str = "/api/chat"
) -> dict[str, Any]:
    """All streams at once, ``tokens`` each; what they saw and what they cost."""
    connections = [await load.connect(server.port) for _ in range(streams)]
    await connections[0].post("/api/chat", body(model, 1))
    gateway_before, worker_before = server.cpu_s()
    start = time.perf_counter()
    answers = await asyncio.gather(
        *(stream.post(path, BODIES[path](model, tokens)) for stream in connections)
    )
    seconds = time.perf_counter() - start
    gateway_after, worker_after = server.cpu_s()
    for stream in connections:
        stream.close()
    total = sum(answer.tokens for answer in answers)
    assert total == streams * tokens, (total, [a.status for a in answers][:3])
    return {
        "streams": streams,
        "tokens/s": round(total / seconds),
        "objects/token": sum(answer.objects for answer in answers) / total,
        "gateway us/token": (gateway_after - gateway_before) / total * 1e6,
        "worker us/token": (worker_after - worker_before) / total * 1e6,
        "gateway MB": server.process.memory_info().rss / 1e6,
    }


async def compare_protocols(
    server: report.Server, streams: int, tokens: int, rounds: int = 4
) -> dict[str, Any]:
    """The gateway's time for a token of each protocol, in turns, at 50 tokens/s a stream."""
    cost: dict[str, list[float]] = {path: [] for path in BODIES}
    for _ in range(rounds):
        for path, costs in cost.items():
            result = await run_streams(server, "paced", streams, tokens, path)
            costs.append(result["gateway us/token"])
    means = {path: sum(costs) / rounds for path, costs in cost.items()}
    ollama, openai = means.values()
    return {
        "streams": streams,
        **{f"{path} us/token": mean for path, mean in means.items()},
        "ratio": openai / ollama,
    }


async def first_tokens(server: report.Server, count: int) -> dict[str, Any]:
    """One client, an idle server: time to the first byte of the answer."""
    stream = await load.connect(server.port)
    await stream.post("/api/chat", body("fast", 1))
    waits = []
    for _ in range(count):
        answer = await stream.post("/api/chat", body("fast", 4))
        waits.append((answer.first - answer.sent) * 1e3)
    stream.close()
    return {
        "requests": count,
        "p50 ms": load.percentile(waits, 0.5),
        "p99 ms": load.percentile(waits, 0.99),
    }


async def rejections(server: report.Server, clients: int, seconds: float) -> dict[str, Any]:
    """One slot taken, no queue: how many 503 a second ``clients`` can be told."""
    holder, held = await _hold_the_slot(server)
    until = time.perf_counter() + seconds
    count = 0

    async def hammer() -> None:
        nonlocal count
        stream = await load.connect(server.port)
        while time.perf_counter() < until:
            answer = await stream.post("/api/chat", body("busy", 1))
            assert answer.status == 503, answer
            count += 1
        stream.close()

    before, _ = server.cpu_s()
    start = time.perf_counter()
    await asyncio.gather(*(hammer() for _ in range(clients)))
    took = time.perf_counter() - start
    after, _ = server.cpu_s()
    held.cancel()
    holder.close()
    return {
        "clients": clients,
        "503/s": round(count / took),
        "us each": (after - before) / count * 1e6,
    }


async def _hold_the_slot(server: report.Server) -> tuple[load.Stream, asyncio.Future[load.Answer]]:
    """A connection whose answer takes the only slot, and goes on."""
    while True:
        holder = await load.connect(server.port)
        held = asyncio.ensure_future(holder.post("/api/chat", body("busy", 1000)))
        await holder.began.wait()
        await asyncio.sleep(0)
        if not held.done():
            return holder, held
        holder.close()


async def measure(streams: list[int], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "OLLAMA_ASYNC_SCRIPTS": str(scripts(Path(folder), max(streams))),
            "OLLAMA_ASYNC_REPETITION_LIMIT": "0",  # the streams say one piece for ever
            "OLLAMA_NUM_PARALLEL": str(max(streams)),  # a worker gets no more slots than planned
        }
        with report.serving(environment) as server:
            first = [await first_tokens(server, 300)]
            saturated = [
                await run_streams(server, "fast", n, max(1000, int(100_000 * seconds) // n))
                for n in streams
            ]
            paced = [await run_streams(server, "paced", n, int(PACE * seconds)) for n in streams]
            protocols = [
                await compare_protocols(server, n, int(PACE * seconds)) for n in streams if n > 1
            ]
        with report.serving({**environment, "OLLAMA_MAX_QUEUE": "0"}) as server:
            rejected = [await rejections(server, n, seconds / 2) for n in (8, 64)]
    return {
        "first": first,
        "saturated": saturated,
        "paced": paced,
        "protocols": protocols,
        "rejected": rejected,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--streams", default="1,8,64,256")
    options.add_argument("--seconds", type=float, default=5.0)
    chosen = options.parse_args()
    streams = [int(word) for word in chosen.streams.split(",")]
    result = uvloop.run(measure(streams, chosen.seconds))
    print(report.cpu_name())
    report.table("time to first token, idle server", result["first"])
    report.table("saturated", result["saturated"])
    report.table(f"paced at {PACE} tokens/s per stream", result["paced"])
    report.table("gateway time of a token, by protocol", result["protocols"])
    report.table("rejections (one slot, OLLAMA_MAX_QUEUE=0)", result["rejected"])
    report.save("gateway", result)


if __name__ == "__main__":
    main()
