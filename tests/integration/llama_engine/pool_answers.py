"""Answers of a small model on our own kernels, in a process of its own: kernels cannot be
unregistered. Prints what became of the requests, as JSON: each alone, and all at once in a pool
that is too small for them.

    python -P -m tests.integration.llama_engine.pool_answers MODEL CACHE
"""

import ctypes
import json
import struct
import sys
from collections import defaultdict
from pathlib import Path
from unittest.mock import patch

import llama_cpp.llama_cpp as lib
import numpy as np

from ollama_async.core.conversation import Sampling
from ollama_async.native.check import check_library
from ollama_async.workers.child import kv_pool
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import llama_cpp
from ollama_async.workers.child.engines.llama_kernels import choose_kernels
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Deltas, Done, Failed

CLIENTS, CELLS, NUM_CTX, ANSWER = 8, 512, 256, 100
SYSTEM = "the people and the water of that long first day " * 6


class Requests:
    def __init__(self, engine):
        self.engine = engine
        self.mailbox = Mailbox()
        self.texts = defaultdict(str)
        self.ends = {}
        self.preempted = set()
        self.loop = EngineLoop(engine, self.mailbox, self.receive, BatchPlanner(128))

    def receive(self, messages):
        for message in messages:
            if isinstance(message, Deltas):
                for number, text in message.items:
                    self.texts[number] += text
            elif isinstance(message, Done | Failed):
                self.ends[message.id] = message

    def ask(self, number, client):
        text = f"{SYSTEM} {client}"
        tokens = self.engine.tokenize(text, add_special=True, parse_special=True)
        sampling = Sampling(temperature=0.8, seed=client)
        request = PreparedRequest(number, tokens, sampling, NUM_CTX, 4, ANSWER, True, False)
        self.mailbox.expect(number)
        self.mailbox.hand_over(number, [request])

    def finish(self, numbers):
        while not set(numbers) <= set(self.ends):
            self.loop.iterate(idle_s=0)
            self.preempted |= {sequence.id for sequence in self.loop.running.preempted}
            if self.engine.facts.is_pooled:
                assert self.loop.pool.used_cells == count_cells(self.engine) <= CELLS


def count_cells(engine):
    """Those that the library uses: they are counted at the beginning of a context's saved state,
    after the architecture's name.
    """
    state = np.zeros(lib.llama_state_get_size(engine._context), np.uint8)
    data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    assert lib.llama_state_get_data(engine._context, data, state.size) == state.size
    (name_size,) = struct.unpack_from("=I", state)
    streams, cells = struct.unpack_from("=II", state, 4 + name_size)
    assert streams == 1
    return cells


def main(model, cache):
    verdict = check_library(Path(cache))
    spec = LoadSpec(
        engine="llama_cpp",
        model=model,
        num_ctx=NUM_CTX,
        slots=2,
        pool_slots=CLIENTS,
        pool_cells=CELLS,
        threads=2,
        batch_size=128,
    )
    kernels = choose_kernels(spec, verdict)
    engine = llama_cpp.load(spec, lambda _fraction: None, kernels=kernels)
    requests = Requests(engine)
    alone, together = range(1, CLIENTS + 1), range(101, CLIENTS + 101)
    with patch.multiple(kv_pool, RESERVED_ANSWER=10, RESERVED_AHEAD=5):
        for number in alone:
            requests.ask(number, number)
            requests.finish([number])
        for number in together:
            requests.ask(number, number - 100)
        requests.finish(together)
    facts = engine.facts
    found = {
        "kernels": facts.kernels,
        "is_pooled": facts.is_pooled,
        "is_invariant": facts.is_invariant,
        "preempted": len(requests.preempted),
        "alone": [requests.texts[number] for number in alone],
        "together": [requests.texts[number] for number in together],
        "answers": [requests.ends[number].usage.answer for number in together],
    }
    json.dump(found, sys.stdout)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
