"""Chooses the batch of a step: decoding sequences, and chunks of waiting prompts.

A step evaluates one token for every sequence that decodes, and fills up with prompt tokens (chunked
prefill). Each prompt token delays the next token of all streams. Each one left out delays the first
token of a waiting prompt. The policy:

- **Streams decode and one prompt waits**: the step should take :data:`TARGET_STEP_S`. If the
  streams alone take so long that little is left, the prompt gets a share of what they take
  (``least_share``), so that a slow machine does not starve prompts.
- **More prompts wait**: their part of the step may be ``1 + 32 * (prompts - 1) / streams`` times as
  long, up to ``long_step_s`` or four times what the streams take, and :data:`MAX_CHUNK` tokens.
  Streams that are joined late decode in small batches until then. With other clients, whose streams
  this slows, the prompts of one client count as one.
- If that comes to fewer than an ``efficient`` number of tokens, that many if they take at most four
  times the target or twice what the streams take. Otherwise what fits, but at least
  :data:`MIN_CHUNK`, so that decoding starves no prompt.
- **Nothing decodes**: only a cancel or a new request waits for the end of the step, so it may take
  :data:`PREFILL_STEP_S`: whole batches where the machine is fast enough.
- **Clients take turns**, one step each. A client's prompts are filled in order of arrival, each as
  far as possible before the next: the library splits a batch by sequences, and one long row is its
  best case. If the prompt whose turn it is is short and others wait, the step takes
  :data:`EFFICIENT_CHUNK` tokens.
- **Images and recordings**: a span of one is evaluated in a pass of its own, beside the streams
  but without other prompts, when it is its client's turn. It counts as a prompt of its tokens,
  unless the model reads it without a causal mask: then it is not split.
- **Constrained answers**: computing the allowed tokens is part of the step. It takes microseconds
  or, with a hostile schema, 10 ms and more. Streams whose mask takes longer than
  :data:`CHEAP_MASK_S` take turns, :data:`MASKS_S` in a step.

Costs are measured (:class:`StepCosts`); until then a step takes 64 prompt tokens. What is efficient
depends on the KV cache (:class:`BatchPolicy`). In a pool all rows of a step are one pass, and from
16 rows on each costs about the same. With separate caches a chunk is a pass by itself, and one of
few tokens costs up to twice as much per token: kernels work on tiles, and below 64 rows attention
goes row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import msgspec

from ollama_async.workers.child.sequence import RunningSequence

TARGET_STEP_S = 0.1
PREFILL_STEP_S = 0.5
MIN_CHUNK = 16
EFFICIENT_CHUNK = 64
MAX_CHUNK = 256
FIXED_CHUNK = 128
"""Chunk of a seeded request that is alone, if sums depend on how a prompt is split."""

CHEAP_MASK_S = 0.001
MASKS_S = 0.025

_SHORT_TAIL = 32
_LONGER_PER_PROMPT = 32
_LONG_STEP_FACTOR = 4  # times what they take themselves, where many prompts wait
_EFFICIENT_TARGETS = 4
_EMA_WEIGHT = 0.25
_DECAY = 0.998
_UNSEEN_SIZE_FACTOR = 0.6
_MAX_INCREASE = 1.25


class BatchPolicy(msgspec.Struct, frozen=True):
    """``sizes``: from how many prompt tokens on, each time, they cost less than fewer do. For the
    rest see the module.
    """

    sizes: tuple[int, ...]
    efficient: int
    least_share: float
    long_step_s: float


SEPARATE_CACHES = BatchPolicy((16, 32, 64, 128, 256), 64, least_share=1.0, long_step_s=2.0)
"""With steps of 100 ms regardless of who waits, 32 conversations of a 0.5B model on two cores took
1.4 times as long, and first tokens up to a minute."""

POOL = BatchPolicy((16,), 16, least_share=0.5, long_step_s=0.5)
"""Measured with models of 0.1B and 0.5B on two cores: no stream waits longer than 0.13 s for a long
prompt (0.23 s with the other size classes, which expect more from larger chunks than these give),
and 16 conversations take as long, whatever the policy."""


class StepCosts:
    """Running estimates of what a step takes, in seconds.

    A step takes ``decode(streams) + tokens * prompt(tokens)``. The cost of a prompt token is kept
    by size class, and separately for steps without streams, where it includes the pass over the
    weights. A class that was never seen is assumed to be cheaper per token than the next smaller
    one, and none to be much more expensive than a smaller one. Estimates that are not renewed fade
    slowly. So every size is tried, and again when the machine has changed.

    The cost of streams is measured only in steps without prompts, which may never happen. So a step
    that takes less than its streams are estimated to take corrects that estimate.
    """

    def __init__(self, sizes: tuple[int, ...] = SEPARATE_CACHES.sizes) -> None:
        self._sizes = sizes
        self._decode: dict[int, float] = {}
        self._prompt: tuple[dict[int, float], dict[int, float]] = ({}, {})

    def observe(self, streams: int, prompt_tokens: int, took_s: float) -> None:
        """A step with so many decoding streams and prompt tokens took ``took_s``."""
        if not prompt_tokens:
            _update_average(self._decode, streams, took_s)
            return
        costs = self._prompt[streams > 0]
        for size in costs:
            costs[size] *= _DECAY
        if took_s < self.decode_s(streams):
            self._decode[self._nearest(streams)] = took_s
        rest_s = max(took_s - self.decode_s(streams), took_s / 10)
        size = max((size for size in self._sizes if size <= prompt_tokens), default=self._sizes[0])
        _update_average(costs, size, rest_s / prompt_tokens)
        for larger in costs:
            if larger > size:
                costs[larger] = min(costs[larger], costs[size] * _MAX_INCREASE)

    def decode_s(self, streams: int) -> float:
        """A step that only decodes; estimated from the nearest number of streams seen."""
        if not streams or not self._decode:
            return 0.0
        return self._decode[self._nearest(streams)]

    def _nearest(self, streams: int) -> int:
        return min(self._decode, key=lambda seen: abs(seen - streams))

    def prompt_s(self, size: int, *, alone: bool) -> float | None:
        """One prompt token in a chunk of the class ``size``; None if nothing is known."""
        costs = self._prompt[not alone]
        if not costs:
            return None
        if size in costs:
            return costs[size]
        smaller = [seen for seen in costs if seen < size]
        return costs[max(smaller)] * _UNSEEN_SIZE_FACTOR if smaller else costs[min(costs)]


class BatchPlanner:
    """Decides what goes into each step. Step thread only."""

    def __init__(
        self,
        batch_size: int,
        policy: BatchPolicy = SEPARATE_CACHES,
        *,
        target_s: float = TARGET_STEP_S,
    ) -> None:
        self.costs = StepCosts(policy.sizes)
        self._policy = policy
        self._batch_size = batch_size
        self._target_s = target_s
        self._steps = 0
        self._turns: dict[str, int] = {}  # the last step of each client that is prefilling

    def observe(self, streams: int, prompt_tokens: int, took_s: float) -> None:
        """A step, or a pass of a span, has ended."""
        self._steps += 1
        self.costs.observe(streams, prompt_tokens, took_s)

    # Decoding

    def choose_decoding(self, decoding: list[RunningSequence]) -> list[RunningSequence]:
        """``decoding`` without the streams whose expensive mask must wait for its turn."""
        expensive = [
            (sequence, constraint.mask_s)
            for sequence in decoding
            if (constraint := sequence.constraint) is not None and constraint.mask_s > CHEAP_MASK_S
        ]
        if len(expensive) < 2:
            return decoding
        expensive.sort(key=lambda each: each[0].last_step)
        totals_s = accumulate(mask_s for _, mask_s in expensive)
        count = max(1, sum(total_s <= MASKS_S for total_s in totals_s))
        for sequence, _ in expensive[:count]:
            sequence.last_step = self._steps
        left_out = {sequence.id for sequence, _ in expensive[count:]}
        return [sequence for sequence in decoding if sequence.id not in left_out]

    # Prefill

    def order(self, prefilling: list[RunningSequence]) -> list[RunningSequence]:
        """The prompts in order of turns: first the client that has waited for longest since its
        last chunk, or since it came; those of one client in order of arrival.
        """
        clients = {sequence.request.client for sequence in prefilling}
        self._turns = {client: self._turns.get(client, self._steps) for client in clients}
        return sorted(prefilling, key=lambda sequence: self._turns[sequence.request.client])

    def plan_prefill(
        self,
        streams: int,
        ready: list[RunningSequence],
        decoding: Iterable[RunningSequence],
        *,
        fixes_seeded: bool,
    ) -> list[tuple[RunningSequence, int]]:
        """The prompts of ``ready`` (as :meth:`order` gave them) that go on in the next step, and by
        how many tokens.

        ``streams`` sequences decode in it. ``fixes_seeded``: a seeded prompt gets chunks
        of a fixed size.
        """
        clients = {sequence.request.client for sequence in decoding}.union(self._turns)
        sizes = self.plan_chunks(
            streams,
            [sequence.readable for sequence in ready],
            fixed=fixes_seeded and bool(ready) and _is_seeded(ready[0]),
            prompt_count=len(self._turns) if len(clients) > 1 else 0,
            is_shared=len(self._turns) > 1,
        )
        chunks = [(sequence, size) for sequence, size in zip(ready, sizes, strict=True) if size]
        for sequence, _ in chunks:
            self.end_turn(sequence)
        return chunks

    def plan_part(
        self, sequence: RunningSequence, streams: int, missing: int, *, fixes_seeded: bool
    ) -> int:
        """How many of the ``missing`` tokens of a span that may be split the next pass takes."""
        fixed = fixes_seeded and _is_seeded(sequence)
        (size,) = self.plan_chunks(streams, [missing], fixed=fixed)
        return size

    def end_turn(self, sequence: RunningSequence) -> None:
        """The sequence takes part in the next step."""
        self._turns[sequence.request.client] = self._steps + 1

    def plan_chunks(
        self,
        streams: int,
        missing: Sequence[int],
        *,
        fixed: bool = False,
        prompt_count: int = 0,
        is_shared: bool = False,
    ) -> list[int]:
        """How many tokens of each waiting prompt the next step takes.

        ``streams`` decode, at most the batch size less :data:`MIN_CHUNK`. ``missing``: tokens still
        to read of each prompt, in order of turns, each at least 1. ``fixed``: the same chunks each
        time, whatever was measured. ``prompt_count``: they count as so many prompts, if not each
        as one. ``is_shared``: they belong to several clients.
        """
        space = self._batch_size - streams
        if not missing or space <= 0:
            return [0] * len(missing)
        size = FIXED_CHUNK if fixed else self._size(streams, prompt_count or len(missing))
        if is_shared and missing[0] <= EFFICIENT_CHUNK:
            size = min(size, EFFICIENT_CHUNK)
        size = min(size, space)
        chunks = []
        for count in missing:  # first come, first served
            chunk = min(count, size)
            is_short = count - chunk < _SHORT_TAIL and count <= space
            if is_short and chunk >= EFFICIENT_CHUNK and not fixed:
                chunk = count
            chunks.append(chunk)
            size = max(0, size - chunk)
            space -= chunk
        return chunks

    def _size(self, streams: int, prompts: int) -> int:
        alone, policy = streams == 0, self._policy
        if self.costs.prompt_s(policy.efficient, alone=alone) is None:
            return EFFICIENT_CHUNK
        if alone:
            return max(
                MIN_CHUNK,
                self._largest(PREFILL_STEP_S * self._target_s / TARGET_STEP_S, alone=True),
            )
        decode_s = self.costs.decode_s(streams)
        fair_s = max(self._target_s - decode_s, policy.least_share * decode_s)
        factor = 1 + _LONGER_PER_PROMPT * (prompts - 1) / streams
        most_s = max(policy.long_step_s, _LONG_STEP_FACTOR * decode_s)
        size = self._largest(min(factor * fair_s, most_s), alone=False)
        if size < policy.efficient:
            token_s = self.costs.prompt_s(policy.efficient, alone=False) or 0.0
            efficient_s = max(_EFFICIENT_TARGETS * self._target_s, 2 * decode_s)
            if policy.efficient * token_s <= efficient_s:
                return policy.efficient
        return min(MAX_CHUNK, max(MIN_CHUNK, size))

    def _largest(self, left_s: float, *, alone: bool) -> int:
        """The most prompt tokens that take at most ``left_s``; 0 if none."""
        if left_s <= 0:
            return 0
        above = self._batch_size + 1
        for size in reversed(self._policy.sizes):
            token_s = self.costs.prompt_s(size, alone=alone) or 0.0
            fitting = above - 1 if left_s >= token_s * (above - 1) else int(left_s / token_s)
            if fitting >= size:
                return fitting - fitting % MIN_CHUNK
            above = size
        return 0


def _is_seeded(sequence: RunningSequence) -> bool:
    return sequence.request.sampling.seed >= 0


def _update_average(estimates: dict[int, float], key: int, value: float) -> None:
    old = estimates.get(key, value)
    estimates[key] = old + _EMA_WEIGHT * (value - old)
