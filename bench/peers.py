"""The servers that ``versus.py`` compares: how each is started, asked, and read.

Every side gets the same file, two things a server must know (slots, tokens of context of each) and
the same sampling; the rest is its default.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import psutil
import report

SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
Messages = Sequence[tuple[str, str]]  # roles and texts


@dataclass(frozen=True)
class Question:
    """What is asked: the conversation so far, how many tokens to answer, perhaps a seed.
    ``counts``: the answer should say how much of the prompt was computed.
    """

    messages: Messages
    tokens_out: int
    seed: int | None = None
    counts: bool = False


@dataclass
class Running:
    """A server with its model loaded."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU seconds so far of the server and the processes under it."""
        every = [self.process, *self.process.children(recursive=True)]
        times = [each.cpu_times() for each in every]
        return sum(each.user + each.system for each in times)


@dataclass(frozen=True)
class Peer:
    """``start`` takes the model, slots (None: the server's choice), and tokens of context of each.
    ``ask`` returns path and body of a streamed request.
    """

    start: Callable[[str, int | None, int], AbstractContextManager[Running]]
    ask: Callable[[Question], tuple[str, dict[str, Any]]]


# Ours


def _ours(environment: dict[str, str]) -> Peer:
    @contextlib.contextmanager
    def start(model: str, slots: int | None, num_ctx: int) -> Iterator[Running]:
        settings = {
            "OLLAMA_NUM_PARALLEL": "" if slots is None else str(slots),
            "OLLAMA_CONTEXT_LENGTH": str(num_ctx),
            "OLLAMA_KEEP_ALIVE": "-1",
            **environment,
        }
        with report.serving(settings) as server:
            create(server.port, model)
            yield Running(server.port, server.process)

    return Peer(start, _ask_ours)


def create(port: int, model: str) -> None:
    """Give our server the benchmark model, by the model's name."""
    with tempfile.NamedTemporaryFile("w", suffix=".modelfile") as modelfile:
        modelfile.write(f"FROM {models.path_of(model)}\n")
        modelfile.flush()
        command = [sys.executable, "-P", "-m", "ollama_async.cli.main"]
        subprocess.run(
            [*command, "create", "m", "-f", modelfile.name],
            env={**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}"},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _ask_ours(question: Question) -> tuple[str, dict[str, Any]]:
    """Ollama's route, unless the answer should say what was cached: only OpenAI's does."""
    messages = [{"role": role, "content": text} for role, text in question.messages]
    seed = {} if question.seed is None else {"seed": question.seed}
    if not question.counts:
        options = {**SAMPLING, **seed, "num_predict": question.tokens_out}
        return "/api/chat", {"model": "m", "messages": messages, "options": options}
    return "/v1/chat/completions", {
        "model": "m",
        "messages": messages,
        "max_tokens": question.tokens_out,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": SAMPLING["temperature"],
        "top_p": SAMPLING["top_p"],  # the rest of SAMPLING is our default
        **seed,
    }


# llama-server


@contextlib.contextmanager
def _llama_server(model: str, slots: int | None, num_ctx: int) -> Iterator[Running]:
    """As many threads as we use, one KV buffer for each slot, its RAM cache on (its default)."""
    assert slots is not None, "a memory of its own choice cannot be compared"
    port = report.free_port()
    command = [
        *shlex.split(os.environ["LLAMA_SERVER"]),
        *("--model", str(models.path_of(model))),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(len(os.sched_getaffinity(0)))),
        *("--parallel", str(slots), "--ctx-size", str(slots * num_ctx)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with report.child(command, port, log, ready="/health") as process:
            yield Running(port, process)


def _ask_completion(question: Question) -> tuple[str, dict[str, Any]]:
    """Its own route takes a text: the same as the models' template makes."""
    seed = {} if question.seed is None else {"seed": question.seed}
    return "/completion", {
        "prompt": " ".join(text.strip() for _, text in question.messages),
        "n_predict": question.tokens_out,
        "ignore_eos": True,
        "stream": True,
        **SAMPLING,
        **seed,
    }


PEERS = {
    "own": _ours({}),
    "stock": _ours({"OLLAMA_ASYNC_KERNELS": "stock"}),
    "llama-server": Peer(_llama_server, _ask_completion),
}


def available() -> list[str]:
    """The sides that can be started here."""
    return [side for side in PEERS if side != "llama-server" or os.environ.get("LLAMA_SERVER")]
