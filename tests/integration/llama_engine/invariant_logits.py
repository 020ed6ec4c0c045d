"""The logits of one request with our own kernels, in a process of its own: kernels cannot be
unregistered. The request is computed alone, cut otherwise, among others, in other cells, and on a
copied prefix. Prints as JSON in which cases a bit differs, and what stock has computed.

    python -P -m tests.integration.llama_engine.invariant_logits MODEL CACHE_TYPE
"""

import ctypes
import json
import os
import sys
from dataclasses import dataclass
from typing import NamedTuple

import llama_cpp.llama_cpp as lib
import numpy as np

from ollama_async.native.kernels import Kernels

SEQUENCES, VOCAB = 10, 150
POOL_CELLS, CELLS = 1024, 256  # in one cache, in each of separate ones
CACHE_TYPES = {"f16": 1, "q8_0": 8}
RANDOM = np.random.default_rng(1)
MINE, FILLER, COPIED = 0, 8, 9
PROMPT = RANDOM.integers(260, 260 + VOCAB, 150).tolist()
FORCED = RANDOM.integers(260, 260 + VOCAB, 4).tolist()
OTHERS = [RANDOM.integers(260, 260 + VOCAB, length).tolist() for length in (40, 75, 33, 120, 51)]


class Rows(NamedTuple):
    sequence: int
    tokens: list[int]
    position: int
    wants_logits: bool = True


@dataclass(frozen=True)
class Case:
    """``cuts``: where the prompt is cut. ``copied``: so much of it is shared with a sequence.
    ``has_holes``: what comes after the first cut is in cells before it.
    """

    cuts: tuple[int, ...] = ()
    threads: int = 2
    has_company: bool = False
    has_holes: bool = False
    copied: int = 0
    is_unified: bool = True


CASES = {
    "one thread": Case(threads=1),
    "cut in two": Case(cuts=(64,)),
    "odd cuts": Case(cuts=(7, 50, 51, 99)),
    "token by token": Case(cuts=tuple(range(1, len(PROMPT)))),
    "among others": Case(has_company=True),
    "other cells": Case(cuts=(64,), has_holes=True),
    "other cells among others, cut": Case(cuts=(41, 90), has_company=True, has_holes=True),
    "copied prefix": Case(copied=100),
    "copied prefix among others": Case(copied=37, has_company=True, threads=3),
    "separate caches among others": Case(has_company=True, is_unified=False),
}


class Context:
    def __init__(self, model, kernels, cache_type, case):
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = POOL_CELLS if case.is_unified else CELLS * SEQUENCES
        parameters.n_seq_max = SEQUENCES
        parameters.n_batch = parameters.n_ubatch = 256
        parameters.n_outputs_max = SEQUENCES
        parameters.n_threads = parameters.n_threads_batch = case.threads
        parameters.kv_unified = case.is_unified
        parameters.swa_full = False
        parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.type_k = parameters.type_v = CACHE_TYPES[cache_type]
        self.context = lib.llama_init_from_model(model, parameters)
        self.memory = lib.llama_get_memory(self.context)
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self.batch = lib.llama_batch_init(256, 0, 1)
        self.kernels = kernels
        kernels.watch(self.memory)

    def compute(self, all_rows):
        """The logits of the last token of MINE; None without one."""
        count, mine = 0, None
        for rows in all_rows:
            for index, token in enumerate(rows.tokens):
                is_last = index == len(rows.tokens) - 1
                self.batch.token[count] = token
                self.batch.pos[count] = rows.position + index
                self.batch.n_seq_id[count] = 1
                self.batch.seq_id[count][0] = rows.sequence
                self.batch.logits[count] = is_last and rows.wants_logits
                if is_last and rows.sequence == MINE and rows.wants_logits:
                    mine = count
                count += 1
        self.batch.n_tokens = count
        assert lib.llama_decode(self.context, self.batch) == 0
        if mine is None:
            return None
        found = lib.llama_get_logits_ith(self.context, mine)
        return np.ctypeslib.as_array(found, (self.vocab,)).copy()

    def close(self):
        self.kernels.watch(None)
        lib.llama_batch_free(self.batch)
        lib.llama_free(self.context)


def compute_request(context, case):
    """The logits after the prompt and after each of the forced tokens."""
    lengths = {}
    if case.has_company or case.has_holes:
        for number, prompt in enumerate(OTHERS, 1):
            context.compute([Rows(number, prompt, 0)])
            lengths[number] = len(prompt)
    if case.has_holes:
        _fill(context, POOL_CELLS - sum(lengths.values()) - case.cuts[0] - len(lengths))
    done = case.copied
    if done:
        context.compute([Rows(COPIED, [*PROMPT[:done], 300, 301], 0)])
        lib.llama_memory_seq_cp(context.memory, COPIED, MINE, 0, done)
    found = []
    for end in (*(cut for cut in case.cuts if cut > done), len(PROMPT)):
        mine = Rows(MINE, PROMPT[done:end], done, end == len(PROMPT))
        found.append(context.compute(_with_company(mine, lengths, case)))
        if case.has_holes and done == 0:
            for number in (1, 4):
                lib.llama_memory_seq_rm(context.memory, number, -1, -1)
                lengths.pop(number)
        done = end
    for offset, token in enumerate(FORCED):
        mine = Rows(MINE, [token], len(PROMPT) + offset)
        found.append(context.compute(_with_company(mine, lengths, case)))
    return np.stack(found[-1 - len(FORCED) :])


def _fill(context, count):
    for position in range(0, count, 200):
        tokens = [265] * min(200, count - position)
        context.compute([Rows(FILLER, tokens, position)])


def _with_company(mine, lengths, case):
    """Others before and behind, which get one token more each time."""
    if not case.has_company:
        return [mine]
    others = [Rows(number, [270 + number], length) for number, length in lengths.items()]
    for number in lengths:
        lengths[number] += 1
    return [*others[:2], mine, *others[2:]]


def main(path, cache_type):
    silent = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silent, ctypes.c_void_p(0))
    lib.llama_backend_init()
    kernels = Kernels(os.environ)
    model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
    found = {}
    with kernels.recorded() as usage:
        for name, case in {"alone": Case(), **CASES}.items():
            context = Context(model, kernels, cache_type, case)
            found[name] = compute_request(context, case)
            context.close()
    lib.llama_model_free(model)
    alone = found["alone"]
    differ = [name for name, logits in found.items() if logits.tobytes() != alone.tobytes()]
    stock = [*usage.variant, *(["attention"] if not usage.attentions else [])]
    json.dump({"differ": differ, "stock": stock, "spread": float(alone.std())}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
