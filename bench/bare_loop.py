"""The reference that the server is compared with: the same work, straight on the library.

One loop in one process: a slot per client, each step decodes a token for every answering client
and fills up with at most 256 prompt tokens in order of arrival, flash attention as the library
chooses, sampling by the library's chain over the best logits. No HTTP, no processes, no text.
What a server adds shows as the difference.

    python bench/bare_loop.py                      all models, loads and numbers of clients
    python bench/bare_loop.py --model q05 --load conversations --clients 8

Loads: ``short`` (90-token prompts, 64 tokens out, two requests a client, at least four),
``long`` (400-token prompts, 64 out, as many), ``conversations`` (a conversation a client: four
turns, each sends the history again plus 60 words and gets 48 tokens; the prefix stays in the slot).
"""

from __future__ import annotations

import os

from ollama_async.workers.openmp import openmp_environ

os.environ.update(openmp_environ() | os.environ)  # before the library starts its threads

import argparse
import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import models
import numpy as np
import report

CHUNK = 256
LOADS = ("short", "long", "conversations")
CLIENTS = (1, 8, 32)
NUM_CTX = 1024
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 1}


@dataclass(frozen=True)
class Turn:
    """One request: ``text`` goes after what the conversation holds already."""

    text: str
    tokens_out: int


@dataclass
class Result:
    """Times in seconds; ``first_s`` has a time to first token per request."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    steps: int = 0
    first_s: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        return {
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "tokens_per_s": self.answer_tokens / self.wall_s,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "steps": self.steps,
            "first_p50_s": float(np.percentile(self.first_s, 50)),
            "first_p99_s": float(np.percentile(self.first_s, 99)),
        }


def conversations(load: str, clients: int) -> list[list[list[Turn]]]:
    """For each client its conversations, one after the other; each a list of turns. The server's
    benchmark sends the same texts.
    """
    random = np.random.default_rng(clients)

    def turn(words: int, tokens_out: int) -> Turn:
        return Turn(models.words(words, random), tokens_out)

    if load == "conversations":
        return [[[turn(60, 48) for _ in range(4)]] for _ in range(clients)]
    words = {"short": 90, "long": 400}[load]
    requests = max(2, 4 // clients)
    return [[[turn(words, 64)] for _ in range(requests)] for _ in range(clients)]


class Library:
    """A model and a context for ``slots`` sequences, and the arrays of one batch."""

    def __init__(
        self,
        path: Path,
        slots: int,
        *,
        num_ctx: int = NUM_CTX,
        threads: int = 0,
        unified: bool = False,
        flash: int = lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
        batch_size: int = 512,
    ) -> None:
        lib.llama_log_set(_SILENT, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(
            os.fsencode(path), lib.llama_model_default_params()
        )
        params = lib.llama_context_default_params()
        params.n_ctx = num_ctx * slots
        params.n_seq_max = params.n_outputs_max = slots
        params.n_batch = params.n_ubatch = batch_size
        params.n_threads = params.n_threads_batch = threads or len(os.sched_getaffinity(0))
        params.flash_attn_type = flash
        params.kv_unified = unified
        params.no_perf = True
        self.context = lib.llama_init_from_model(self.model, params)
        self.memory = lib.llama_get_memory(self.context)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self._allocate(batch_size, slots)

    def _allocate(self, size: int, slots: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._ids = np.arange(slots, dtype=np.int32)
        self._addresses = np.zeros(size, np.uintp)
        self._outputs = np.zeros(size, np.int8)
        self._batch = lib.llama_batch(
            token=_pointer(self._tokens, ctypes.c_int32),
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._addresses, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        outputs: Sequence[int],
    ) -> Any:
        """One step, rows sorted by slot; ``outputs`` are the indices that want logits. Returns
        those logits, (len(outputs), vocab).
        """
        size = len(tokens)
        self._tokens[:size] = tokens
        self._positions[:size] = positions
        self._addresses[:size] = np.multiply(slots, 4) + self._ids.ctypes.data
        self._outputs[:size] = 0
        self._outputs[outputs] = 1
        self._batch.n_tokens = size
        status = lib.llama_decode(self.context, self._batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        pointer = lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, (len(outputs), self.vocab_size))

    def forget(self, slot: int, length: int = -1) -> None:
        lib.llama_memory_seq_rm(self.memory, slot, length, -1)

    def tokenize(self, text: str, *, first: bool) -> list[int]:
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        count = lib.llama_tokenize(self.vocab, data, len(data), tokens, len(tokens), first, True)
        return tokens[:count]

    def close(self) -> None:
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)


class Chain:
    """top_k → top_p → temperature → draw, over candidates that surely hold the top k."""

    def __init__(self, vocab_size: int) -> None:
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = lib.llama_sampler_chain_init(params)
        for link in (
            lib.llama_sampler_init_top_k(SAMPLING["top_k"]),
            lib.llama_sampler_init_top_p(SAMPLING["top_p"], 0),
            lib.llama_sampler_init_temp(SAMPLING["temperature"]),
            lib.llama_sampler_init_dist(SAMPLING["seed"]),
        ):
            lib.llama_sampler_chain_add(self._chain, link)
        kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._data = np.zeros(vocab_size, kind)
        self._ids, self._logits = self._data["id"], self._data["logit"]
        self._array = lib.llama_token_data_array(data=_pointer(self._data, lib.llama_token_data))
        self._width = vocab_size // 64

    def sample(self, logits: Any) -> int:
        width = self._width
        maxima = logits[: 64 * width].reshape(64, width).max(axis=0)
        maxima.partition(width - SAMPLING["top_k"])
        best = np.flatnonzero(logits >= maxima[width - SAMPLING["top_k"]])
        self._ids[: len(best)] = best
        self._logits[: len(best)] = logits[best]
        array = self._array
        array.size, array.selected, array.sorted = len(best), -1, False
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(self._ids[array.selected])

    def close(self) -> None:
        lib.llama_sampler_free(self._chain)


@dataclass
class Client:
    """``pending`` prompt tokens are still to be evaluated; ``position`` is the slot's length."""

    slot: int
    turns: Iterator[tuple[bool, Turn]]
    pending: list[int] = field(default_factory=list)
    position: int = 0
    last: int = -1
    left: int = 0
    sent: float = 0.0
    is_done: bool = False


def run(library: Library, script: list[list[list[Turn]]]) -> Result:
    """Serve every client its turns, one after the other, all clients at once."""
    result = Result()
    clients = [
        Client(slot, iter([(turn is talk[0], turn) for talk in talks for turn in talk]))
        for slot, talks in enumerate(script)
    ]
    chains = [Chain(library.vocab_size) for _ in clients]
    start, start_cpu = time.perf_counter(), time.process_time()
    for client in clients:
        _next_turn(library, client, result)
    arrivals = list(clients)
    while any(not client.is_done for client in clients):
        sampling = _step(library, clients, arrivals, result)
        now = time.perf_counter()
        for client, logits in sampling:
            client.last = chains[client.slot].sample(logits)
            if client.sent:
                result.first_s.append(now - client.sent)
                client.sent = 0.0
            client.left -= 1
            result.answer_tokens += 1
            if client.left == 0:
                _next_turn(library, client, result)
                arrivals.append(client)
        arrivals = [client for client in arrivals if client.pending]
    result.wall_s = time.perf_counter() - start
    result.cpu_s = time.process_time() - start_cpu
    for chain in chains:
        chain.close()
    return result


def _next_turn(library: Library, client: Client, result: Result) -> None:
    is_first, turn = next(client.turns, (True, None))
    if turn is None:
        client.is_done = True
        return
    if is_first:
        library.forget(client.slot)
        client.position = 0
        client.pending = library.tokenize(turn.text, first=True)
    else:  # the last token of the answer has not been evaluated yet
        client.pending = [client.last, *library.tokenize(turn.text, first=False)]
    client.left = turn.tokens_out
    client.sent = time.perf_counter()
    result.prompt_tokens += len(client.pending)


def _step(
    library: Library, clients: list[Client], arrivals: list[Client], result: Result
) -> list[tuple[Client, Any]]:
    """One decode; returns who has to sample from which logits."""
    budget, share = CHUNK, {}
    for client in arrivals:
        share[client.slot] = min(budget, len(client.pending))
        budget -= share[client.slot]
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    outputs: list[int] = []
    sampling: list[Client] = []
    for client in clients:
        if client.pending:
            count = share.get(client.slot, 0)
            tokens += client.pending[:count]
            del client.pending[:count]
        elif not client.is_done:
            count = 1
            tokens.append(client.last)
        else:
            count = 0
        if not count:
            continue
        positions += range(client.position, client.position + count)
        slots += [client.slot] * count
        client.position += count
        if not client.pending:
            outputs.append(len(tokens) - 1)
            sampling.append(client)
    logits = library.decode(tokens, positions, slots, outputs)
    result.steps += 1
    return list(zip(sampling, logits, strict=True))


def _pointer(array: Any, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


_SILENT = lib.llama_log_callback(lambda _level, _text, _data: None)


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmark loads without a server.")
    parser.add_argument("--model", choices=models.SHAPES, action="append")
    parser.add_argument("--load", choices=LOADS, action="append")
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    for model in arguments.model or models.COMMON:
        for clients in arguments.clients or CLIENTS:
            library = Library(models.path_of(model), clients, threads=arguments.threads)
            for load in arguments.load or LOADS:
                result = run(library, conversations(load, clients))
                rows.append({"model": model, "load": load, "clients": clients} | result.summary())
                print(f"{model} {load} {clients}: {result.wall_s:.1f} s", flush=True)
            library.close()
    report.table("bare loop over the library", rows)
    print(f"\n{report.cpu_name()}\n{report.library_flags()}")
    report.save("bare-loop", {"library": report.library_flags(), "rows": rows})


if __name__ == "__main__":
    main()
