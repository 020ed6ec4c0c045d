"""The whole server with a real engine, beside a bare loop over the same library.

    python bench/end_to_end.py                                everything (about an hour)
    python bench/end_to_end.py --model q05 --load conversations --clients 8 --rounds 3

Both sides get the same prompts, the same number of slots, context and sampling options, and take
turns in one run, because machines drift. ``share`` is the bare loop's time divided by the server's:
1.00 means that HTTP, queue, pipe and batcher cost nothing. CPU seconds say the same if something
else keeps the machine busy. Loads are described in ``bare_loop.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import bare_loop
import load
import models
import peers
import report
import uvloop

_OPTIONS = {name: value for name, value in bare_loop.SAMPLING.items() if name != "seed"}
"""Without a seed: a request that names one is answered reproducibly and reuses no prefix."""


def run_bare(model: str, kind: str, clients: int) -> dict[str, float]:
    """In a process of its own, so that its memory and threads are gone when the server runs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_bare, model, kind, clients).result()


def _bare(model: str, kind: str, clients: int) -> dict[str, float]:
    library = bare_loop.Library(models.path_of(model), clients)
    try:
        return bare_loop.run(library, bare_loop.conversations(kind, clients)).summary()
    finally:
        library.close()


def run_server(model: str, kind: str, clients: int) -> dict[str, float]:
    environment = {
        "OLLAMA_NUM_PARALLEL": str(clients),
        "OLLAMA_CONTEXT_LENGTH": str(bare_loop.NUM_CTX),
        "OLLAMA_KEEP_ALIVE": "-1",
    }
    with report.serving(environment) as server:
        peers.create(server.port, model)
        return uvloop.run(_drive(server, bare_loop.conversations(kind, clients)))


async def _drive(
    server: report.Server, script: list[list[list[bare_loop.Turn]]]
) -> dict[str, float]:
    """Every client holds its conversations, one after the other, all clients at once."""
    connections = [await load.connect(server.port) for _ in script]
    await connections[0].post("/api/chat", {"model": "m", "messages": []})
    gateway_before, worker_before = server.cpu_s()
    began = time.perf_counter()
    answers = await asyncio.gather(*map(_talk, connections, script))
    wall_s = time.perf_counter() - began
    gateway_after, worker_after = server.cpu_s()
    for stream in connections:
        stream.close()
    every = [answer for many in answers for answer in many]
    tokens = sum(answer.tokens for answer in every)
    waits = [answer.first - answer.sent for answer in every]
    return {
        "wall_s": wall_s,
        "answer_tokens": tokens,
        "first_p50_s": load.percentile(waits, 0.5),
        "first_p99_s": load.percentile(waits, 0.99),
        "worst_gap_s": max(answer.worst_gap_s for answer in every),
        "gateway_cpu_s": gateway_after - gateway_before,
        "worker_cpu_s": worker_after - worker_before,
    }


async def _talk(stream: load.Stream, talks: list[list[bare_loop.Turn]]) -> list[load.Answer]:
    answers = []
    for talk in talks:
        messages: list[dict[str, str]] = []
        for turn in talk:
            messages.append({"role": "user", "content": turn.text})
            body = {
                "model": "m",
                "messages": messages,
                "options": {**_OPTIONS, "num_predict": turn.tokens_out},
            }
            answer = await stream.post("/api/chat", body, keeps_text=True)
            assert answer.tokens == turn.tokens_out, (answer.status, answer.final)
            messages.append({"role": "assistant", "content": answer.text})
            answers.append(answer)
    return answers


def compare(model: str, kind: str, clients: int, rounds: int) -> dict[str, Any]:
    """Rounds of both sides in turn; medians."""
    bare: list[dict[str, float]] = []
    served: list[dict[str, float]] = []
    for _ in range(rounds):
        bare.append(run_bare(model, kind, clients))
        served.append(run_server(model, kind, clients))

    def median(side: list[dict[str, float]], name: str) -> float:
        return statistics.median(run[name] for run in side)

    assert bare[0]["answer_tokens"] == served[0]["answer_tokens"]
    return {
        "model": model,
        "load": kind,
        "clients": clients,
        "bare s": median(bare, "wall_s"),
        "server s": median(served, "wall_s"),
        "share": median(bare, "wall_s") / median(served, "wall_s"),
        "bare first p50": median(bare, "first_p50_s"),
        "first p50": median(served, "first_p50_s"),
        "bare first p99": median(bare, "first_p99_s"),
        "first p99": median(served, "first_p99_s"),
        "worst gap": median(served, "worst_gap_s"),
        "bare CPU s": median(bare, "cpu_s"),
        "worker CPU s": median(served, "worker_cpu_s"),
        "gateway CPU s": median(served, "gateway_cpu_s"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The server beside a bare loop.")
    parser.add_argument("--model", choices=models.SHAPES, action="append")
    parser.add_argument("--load", choices=bare_loop.LOADS, action="append")
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    rows = []
    for model in chosen.model or models.COMMON:
        for clients in chosen.clients or bare_loop.CLIENTS:
            for kind in chosen.load or bare_loop.LOADS:
                rows.append(compare(model, kind, clients, chosen.rounds))
                print(rows[-1], flush=True)
    print(f"\n{report.cpu_name()}\n{report.library_flags()}")
    report.table("the server beside a bare loop (seconds)", rows)
    report.save("end_to_end", {"library": report.library_flags(), "rows": rows})


if __name__ == "__main__":
    main()
