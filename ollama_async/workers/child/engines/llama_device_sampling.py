"""Sampling in the graph, on the device that computes the logits.

Otherwise each step copies a row of the vocabulary for each stream, and samples them one by one: 39
MB and 5 ms for 64 streams of a model with 150,000 tokens. The library can run a sampler chain on
the device instead, one for each sequence (``llama_set_sampler``), and copies the chosen tokens.

Each change of a sequence's chain makes the library plan its graphs anew, in milliseconds. So a
chain stays with its slot, and the next request with the same parameters uses it again. Chains are
added only to steps with more streams than prompt lookup drafts for, all that are missing at once,
and not again for a while. A chain is removed as soon as its slot needs logits.

The library runs a chain as far as the device can, and the rest here. A device that cannot run the
whole chain is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import llama_cpp.llama_cpp as lib
import msgspec

from ollama_async.core.conversation import Sampling
from ollama_async.workers.child.engines.engine import MAX_STREAMS
from ollama_async.workers.child.engines.llama_sampling import RANDOM_SEED, Sampler

_CHANGE_PERIOD = 64
"""Steps between two additions of chains."""

_MOST_CANDIDATES = 1024
_NO_TOKEN = -1


class ChainKey(msgspec.Struct, frozen=True):
    """What a chain depends on: those with the same key draw from the same distribution."""

    top_k: int
    top_p: float = 1.0
    min_p: float = 0.0
    temperature: float = 0.0
    penalties: tuple[int, float, float, float] | None = None


def chain_key(sampling: Sampling, sampler: Sampler) -> ChainKey | None:
    """The chain that samples like ``sampler``; None if there is no such chain.

    The host is needed for constraints, logit bias, Mirostat, typical_p, and top_k that is off or
    large. It also draws what has a seed: at which token a chain takes over depends on others.
    """
    if sampler.is_constrained or sampling.logit_bias:
        return None
    penalties = None
    if sampler.recent is not None and sampler.recent.maxlen:
        penalties = (
            sampler.recent.maxlen,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    if sampling.temperature <= 0:
        return ChainKey(top_k=1, penalties=penalties)
    if sampling.mirostat or sampling.seed >= 0 or sampling.typical_p < 1:
        return None
    if not 0 < sampling.top_k <= _MOST_CANDIDATES:
        return None
    return ChainKey(sampling.top_k, sampling.top_p, sampling.min_p, sampling.temperature, penalties)


class _Attached(msgspec.Struct):
    """``sampler``: of the request whose tokens the chain has accepted."""

    key: ChainKey
    chain: Any
    sampler: Sampler | None = None


class DeviceSampling:
    """The chains of a context's slots. Call :meth:`prepare` before each step that samples, then
    :meth:`sample` for each of its slots. ``seed`` is that of all chains, which draw at random
    without one.
    """

    def __init__(self, context: Any, vocab_size: int, seed: int = RANDOM_SEED) -> None:
        self._context = context
        self._vocab_size = vocab_size
        self._seed = seed
        self._attached: dict[int, _Attached] = {}
        self._is_supported = True
        self._steps_until_change = 0

    def prepare(self, samplers: Mapping[int, tuple[ChainKey | None, Sampler]]) -> None:
        """The next step samples for these slots, once each, with chains where that is possible."""
        self._steps_until_change = max(0, self._steps_until_change - 1)
        self.detach(
            slot
            for slot, (key, _) in samplers.items()
            if slot in self._attached and self._attached[slot].key != key
        )
        if not self._is_supported:
            self.detach(list(self._attached))
        elif len(samplers) > MAX_STREAMS and not self._steps_until_change:
            self._attach(samplers)
        for slot, (_, sampler) in samplers.items():
            attached = self._attached.get(slot)
            if attached is not None and attached.sampler is not sampler:
                lib.llama_sampler_reset(attached.chain)
                for token in sampler.recent or ():
                    lib.llama_sampler_accept(attached.chain, token)
                attached.sampler = sampler

    def detach(self, slots: Iterable[int]) -> None:
        """The next step gives the logits of these slots."""
        for slot in list(slots):
            attached = self._attached.pop(slot, None)
            if attached is not None:
                lib.llama_set_sampler(self._context, slot, None)
                lib.llama_sampler_free(attached.chain)

    def sample(self, slot: int, row: int, rows: int) -> int | None:
        """The token of a slot, which has logits in ``row`` of ``rows``; None: it has no chain."""
        attached = self._attached.get(slot)
        if attached is None:
            return None
        index = row - rows  # counted from the last row
        token: int = lib.llama_get_sampled_token_ith(self._context, index)
        self._is_supported = self._is_supported and token != _NO_TOKEN
        return int(lib.llama_sampler_sample(attached.chain, self._context, index))

    def close(self) -> None:
        """Before the context is freed."""
        self.detach(list(self._attached))

    def _attach(self, samplers: Mapping[int, tuple[ChainKey | None, Sampler]]) -> None:
        for slot, (key, _) in samplers.items():
            if key is None or slot in self._attached:
                continue
            self._steps_until_change = _CHANGE_PERIOD
            chain = _build_chain(key, self._vocab_size, self._seed)
            if not lib.llama_set_sampler(self._context, slot, chain):
                lib.llama_sampler_free(chain)
                self._is_supported = False
                return
            self._attached[slot] = _Attached(key, chain)


def _build_chain(key: ChainKey, vocab_size: int, seed: int) -> Any:
    """In the order of :mod:`.llama_sampling`. The library's greedy sampler does not know which
    token a candidate is, so the largest logit is drawn from one candidate.
    """
    params = lib.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = lib.llama_sampler_chain_init(params)
    links = []
    if key.penalties is not None:
        links.append(lib.llama_sampler_init_penalties(vocab_size, *key.penalties))
    links.append(lib.llama_sampler_init_top_k(key.top_k))
    if key.top_p < 1:
        links.append(lib.llama_sampler_init_top_p(key.top_p, 0))
    if key.min_p > 0:
        links.append(lib.llama_sampler_init_min_p(key.min_p, 0))
    if key.temperature > 0:
        links.append(lib.llama_sampler_init_temp(key.temperature))
    links.append(lib.llama_sampler_init_dist(seed))
    for link in links:
        lib.llama_sampler_chain_add(chain, link)
    return chain
