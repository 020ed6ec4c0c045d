"""Embeddings a second: the server, beside the library by itself and sentence-transformers.

    python bench/embeddings.py [--rounds 3] [--seconds 4] [--clients 1,8,32]
                               [--sentence-transformers PYTHON]

The model has the shape of all-MiniLM-L6-v2 (22M parameters), random weights, F16; a sentence has 30
tokens. Each client sends one sentence at a time to `/api/embed`; a last one sends a thousand in one
request. The library embeds sentences one by one and in batches, tokenizing included; its best batch
is what the server is measured against. `PYTHON` is an interpreter with sentence-transformers:

    python -m venv st && st/bin/pip install sentence-transformers

It gets the same weights (F32, which it is fastest with on a CPU), and its vectors are compared.
All take turns in one run, on all cores, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import load
import numpy as np
import report

from ollama_async.native.tiny_encoder import (
    EncoderShape,
    random_weights,
    vocabulary,
    write_tiny_encoder,
)
from ollama_async.workers.openmp import openmp_environ

SHAPE = EncoderShape(layers=6, width=384, heads=12, feed_forward=1536, vocab=30_522, context=512)
WORDS = 28  # of a sentence; with [CLS] and [SEP] 30 tokens
SENTENCES = 1000
BATCHES = (1, 4, 8, 16, 32, 64)
ST_BATCHES = (1, 8, 32, 128)
HERE = Path(__file__).parent
_ENVIRON = openmp_environ()  # as the server's workers have it


def sentences() -> list[str]:
    random = np.random.default_rng(0)
    words = [text[1:] for text in vocabulary(SHAPE.vocab) if text.startswith("▁pad")]
    return [" ".join(random.choice(words, WORDS)) for _ in range(SENTENCES)]


# the other sides, each a process that answers a line with a line


@contextmanager
def other_side(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen(command, text=True, env={**os.environ, **_ENVIRON}, **pipes)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def ask(child: subprocess.Popen[str], question: dict[str, Any]) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(question) + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit("the other side has ended")
    return json.loads(line)


def serve_library(path: str) -> None:
    """Answer ``{"batch", "seconds"}`` with a rate, as the library gives it to a bare loop."""
    from ollama_async.workers.child.engines import llama_embedding  # noqa: PLC0415
    from ollama_async.workers.load_spec import LoadSpec  # noqa: PLC0415

    spec = LoadSpec(
        engine="llama_cpp",
        model=path,
        num_ctx=SHAPE.context,
        slots=1,
        batch_size=2048,
        embedding="encoder",
    )
    engine = llama_embedding.load(spec, lambda _fraction: None)
    texts = sentences()

    def embed(batch: list[str]) -> list[bytes]:
        return engine.embed(
            [engine.tokenize(text, add_special=True, parse_special=True) for text in batch],
            lambda: False,
        )

    for line in sys.stdin:
        question = json.loads(line)
        size, done, began = question["batch"], 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < question["seconds"]:
            start = done % (SENTENCES - size)
            embed(texts[start : start + size])
            done += size
        print(json.dumps(done / passed), flush=True)


# the server


def create_model(server: report.Server, gguf: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".modelfile") as modelfile:
        modelfile.write(f"FROM {gguf}\n")
        modelfile.flush()
        command = [sys.executable, "-P", "-m", "ollama_async.cli.main", "create", "m"]
        subprocess.run(
            [*command, "-f", modelfile.name],
            env={"OLLAMA_HOST": f"127.0.0.1:{server.port}"},
            check=True,
            stdout=subprocess.DEVNULL,
        )


async def drive(server: report.Server, clients: int, seconds: float) -> dict[str, float]:
    """Every client embeds one sentence after the other; the rate, and CPU time for each."""
    connections = [await load.connect(server.port) for _ in range(clients)]
    texts = sentences()
    until = time.perf_counter() + seconds

    async def embed(stream: load.Stream, number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            text = texts[(number + clients * done) % SENTENCES]
            answer = await stream.post("/api/embed", {"model": "m", "input": text})
            assert answer.status == 200
            done += 1
        return done

    before, began = server.cpu_s(), time.perf_counter()
    done = sum(await asyncio.gather(*map(embed, connections, range(clients))))
    passed, after = time.perf_counter() - began, server.cpu_s()
    for stream in connections:
        stream.close()
    return {
        "rate": done / passed,
        "gateway_us": (after[0] - before[0]) / done * 1e6,
        "worker_us": (after[1] - before[1]) / done * 1e6,
    }


def embed_all(server: report.Server, texts: list[str]) -> tuple[float, list[list[float]]]:
    """One request: sentences a second, and their vectors."""
    body = json.dumps({"model": "m", "input": texts}).encode()
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/embed", body) as answer:
        vectors = json.load(answer)["embeddings"]
    return len(texts) / (time.perf_counter() - began), vectors


# the run


def measure(
    server: report.Server,
    library: subprocess.Popen[str],
    transformers: subprocess.Popen[str] | None,
    clients: list[int],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """All that was measured, by name, a number for each round."""
    found: dict[str, list[float]] = defaultdict(list)
    texts = sentences()
    for _ in range(options.rounds):
        for size in BATCHES:
            rate = ask(library, {"batch": size, "seconds": options.seconds})
            found[f"library, batches of {size}"].append(rate)
        for count in clients:
            for name, value in asyncio.run(drive(server, count, options.seconds)).items():
                found[f"server, {count} clients: {name}"].append(value)
        found["server, one request"].append(embed_all(server, texts)[0])
        for size in ST_BATCHES if transformers else ():
            assert transformers is not None
            rate = ask(transformers, {"batch": size, "seconds": options.seconds})
            found[f"sentence-transformers, batches of {size}"].append(rate)
    return found


def show(found: dict[str, list[float]], clients: list[int]) -> None:
    medians = {name: statistics.median(values) for name, values in found.items()}
    alone = medians["library, batches of 1"]
    best = max(medians[f"library, batches of {size}"] for size in BATCHES)
    rates = {f"server, {count} clients": f"server, {count} clients: rate" for count in clients}
    plain = {name: name for name in medians if ":" not in name}
    report.table(
        "embeddings a second",
        [
            {
                "what": what,
                "rate": round(medians[name]),
                "of the library's best batch": medians[name] / best,
                "of one by one": medians[name] / alone,
            }
            for what, name in (plain | rates).items()
        ],
    )
    report.table(
        "CPU time of an embedding",
        [
            {
                "clients": count,
                "gateway us": round(medians[f"server, {count} clients: gateway_us"]),
                "worker us": round(medians[f"server, {count} clients: worker_us"]),
            }
            for count in clients
        ],
    )
    report.save("embeddings", {"medians": medians, "rounds": found})


def compare_vectors(server: report.Server, transformers: subprocess.Popen[str]) -> None:
    texts = sentences()[:20]
    ours = np.array(embed_all(server, texts)[1])
    theirs = np.array(ask(transformers, {"vectors": texts}))
    print(f"least cosine to sentence-transformers: {(ours * theirs).sum(axis=1).min():.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--sentence-transformers", metavar="PYTHON")
    parser.add_argument("--library", metavar="GGUF", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        serve_library(options.library)
        return
    clients = [int(count) for count in options.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        gguf = write_tiny_encoder(Path(folder) / "minilm.gguf", SHAPE, quantization="F16")
        weights = random_weights(SHAPE, SHAPE.vocab, np.random.default_rng(0))
        np.savez(Path(folder) / "weights.npz", **weights)
        (Path(folder) / "vocabulary.json").write_text(json.dumps(vocabulary(SHAPE.vocab)))
        (Path(folder) / "sentences.json").write_text(json.dumps(sentences()))
        python = options.sentence_transformers
        st = [python, str(HERE / "sentence_transformers_side.py"), folder] if python else ["cat"]
        with (
            other_side([sys.executable, __file__, "--library", str(gguf)]) as library,
            other_side(st) as transformers,
            report.serving({"OLLAMA_KEEP_ALIVE": "-1"}) as server,
        ):
            create_model(server, gguf)
            embed_all(server, sentences()[:1])
            if python:
                compare_vectors(server, transformers)
            found = measure(server, library, transformers if python else None, clients, options)
    print(f"{report.cpu_name()}\n{report.library_flags()}")
    show(found, clients)


if __name__ == "__main__":
    main()
