"""Sampling: the library's sampler chain, in llama-server's order.

logit_bias → penalties → top_k → typical_p → top_p → min_p → temperature → draw. Mirostat takes
the place of top_k to min_p, after temperature. (llama-server's DRY, top-n-sigma and XTC are off by
default and have no option in Ollama's API.)

The library's own ``llama_sampler_sample`` copies the whole vocabulary for each token: 125 µs for
150,000 tokens, 510 with penalties. Two shortcuts give the same token in 60 and 75 µs:

* greedy without penalties is an argmax;
* with ``top_k`` only the largest logits can win, so the chain gets only those. Penalties change
  only the logits of recent tokens, so k + their number largest, and those tokens themselves, are
  enough. A bias is added to a copy of the row before.

With a constraint, a token is sampled without it first, and again among the allowed tokens if it is
not allowed. The distribution is the same (up to what ``top_k`` and ``top_p`` cut off), and checking
one token costs far less than computing all: a model that understands the form is rarely wrong.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from ollama_async.core.conversation import Sampling
from ollama_async.workers.child.engines.engine import Constraint
from ollama_async.workers.child.engines.logits import Logits, can_find_largest, find_largest

_LONGEST_MEMORY = 4096
"""Tokens that penalties look back at most. Feeding them to a new request's sampler takes a
microsecond each, while all other requests wait."""
RANDOM_SEED = 0xFFFFFFFF  # the library's value for a random seed
_IMPOSSIBLE = 80.0  # below the largest logit: a probability that float32 can hardly hold
_MIROSTAT_TOKENS = 100  # from which Mirostat 1 estimates Zipf's exponent, as in its paper

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class CandidateArray:
    """A reusable ``llama_token_data_array`` for the whole vocabulary."""

    def __init__(self, vocab_size: int) -> None:
        self._data = np.zeros(vocab_size, _CANDIDATE)
        self._ids = self._data["id"]
        self._logits = self._data["logit"]
        self._array = lib.llama_token_data_array(
            data=ctypes.cast(self._data.ctypes.data, lib.llama_token_data_p)
        )
        self._pointer = ctypes.byref(self._array)

    def choose(self, chain: Any, tokens: NDArray[np.intp], logits: Logits) -> int:
        """Run the chain over ``tokens``, whose logits are ``logits[tokens]``."""
        size = len(tokens)
        self._ids[:size] = tokens
        self._logits[:size] = logits[tokens]
        array = self._array
        array.size = size
        array.selected = -1
        array.sorted = False
        lib.llama_sampler_apply(chain, self._pointer)
        return int(self._ids[array.selected])


class Sampler:
    """Samples one request's tokens. ``close`` frees the library's part. ``recent``: the tokens that
    are penalized; None: none are.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        *,
        vocab_size: int,
        num_ctx: int,
    ) -> None:
        last_n = _LONGEST_MEMORY if sampling.repeat_last_n < 0 else sampling.repeat_last_n
        last_n = min(last_n, num_ctx, _LONGEST_MEMORY)
        penalizes = last_n > 0 and (
            sampling.repeat_penalty != 1.0
            or sampling.presence_penalty != 0.0
            or sampling.frequency_penalty != 0.0
        )
        self._constraint = constraint
        bias = sampling.logit_bias
        self._biased = np.fromiter(bias, np.intp, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        self._is_typical = sampling.typical_p < 1
        self._is_argmax = sampling.temperature <= 0 and not penalizes
        self.recent: deque[int] | None = deque(maxlen=last_n) if penalizes else None
        self._kept = _count_kept(sampling, last_n if penalizes else 0, vocab_size)
        self._chain = _build_chain(sampling, last_n, vocab_size)
        if self.recent is not None:
            self._accept(prompt[-last_n:])

    def sample(self, logits: Logits, candidates: CandidateArray) -> int:
        """One token; ``logits`` is the row of the vocabulary, as the library wrote it, and stays as
        it is.
        """
        if self._biased.size:
            logits = logits.copy()
            logits[self._biased] += self._bias
        if self._is_argmax:
            token = int(logits.argmax())
        else:
            tokens = self._select(logits) if self._kept else None
            if tokens is None:
                tokens = np.arange(len(logits))
            token = self._draw(tokens, logits, candidates)
        if self._constraint is not None:
            token = self._constrain(self._constraint, token, logits, candidates)
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """``token`` comes next, whoever sampled it."""
        if self.recent is not None:
            self._accept((token,))

    @property
    def is_constrained(self) -> bool:
        return self._constraint is not None

    def close(self) -> None:
        lib.llama_sampler_free(self._chain)

    def _constrain(
        self, constraint: Constraint, token: int, logits: Logits, candidates: CandidateArray
    ) -> int:
        """``token`` if it is allowed, or else another one."""
        if not constraint.allows(token):
            allowed = constraint.allowed()
            if self._is_argmax and len(allowed):
                token = int(allowed[logits[allowed].argmax()])
            elif len(allowed):
                token = self._draw(allowed, logits, candidates)
        constraint.accept(token)
        return token

    def _draw(self, tokens: NDArray[np.intp], logits: Logits, candidates: CandidateArray) -> int:
        """One of ``tokens``. With ``typical_p``, none of probability 0: the library would compute
        an entropy of NaN, and keep all. These are never typical.
        """
        if self._is_typical:
            values = logits[tokens]
            possible = tokens[values > values.max() - _IMPOSSIBLE]
            tokens = possible if len(possible) else tokens
        return candidates.choose(self._chain, tokens, logits)

    def _select(self, logits: Logits) -> NDArray[np.intp] | None:
        """A superset of the tokens that top_k can keep; None: take all."""
        chosen = find_largest(logits, self._kept)
        if chosen is None or self.recent is None:
            return chosen
        return np.union1d(chosen, np.fromiter(self.recent, np.intp))

    def _accept(self, tokens: Iterable[int]) -> None:
        assert self.recent is not None
        for token in tokens:
            self.recent.append(token)
            lib.llama_sampler_accept(self._chain, token)


def _count_kept(sampling: Sampling, penalized: int, vocab_size: int) -> int:
    """How many of the largest logits are enough; 0: all are needed."""
    if sampling.temperature <= 0:
        kept = 1 + penalized
    elif sampling.top_k > 0 and not sampling.mirostat:
        kept = sampling.top_k + penalized
    else:
        return 0
    return kept if can_find_largest(kept, vocab_size) else 0


def _build_chain(sampling: Sampling, last_n: int, vocab_size: int) -> Any:
    params = lib.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = lib.llama_sampler_chain_init(params)
    links = [
        lib.llama_sampler_init_penalties(
            vocab_size,
            last_n,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    ]
    if sampling.temperature <= 0:
        links.append(lib.llama_sampler_init_greedy())
    else:
        links += _build_draw(sampling, vocab_size)
    for link in links:
        lib.llama_sampler_chain_add(chain, link)
    return chain


def _build_draw(sampling: Sampling, vocab_size: int) -> list[Any]:
    """The links that narrow the choice down, and draw."""
    seed = RANDOM_SEED if sampling.seed < 0 else min(sampling.seed, RANDOM_SEED - 1)
    heat = lib.llama_sampler_init_temp(sampling.temperature)
    target, rate = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        draw = lib.llama_sampler_init_mirostat(vocab_size, seed, target, rate, _MIROSTAT_TOKENS)
        return [heat, draw]
    if sampling.mirostat == 2:
        return [heat, lib.llama_sampler_init_mirostat_v2(seed, target, rate)]
    return [
        lib.llama_sampler_init_top_k(sampling.top_k),
        lib.llama_sampler_init_typical(sampling.typical_p, 0),
        lib.llama_sampler_init_top_p(sampling.top_p, 0),
        lib.llama_sampler_init_min_p(sampling.min_p, 0),
        heat,
        lib.llama_sampler_init_dist(seed),
    ]
