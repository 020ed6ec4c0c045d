"""How many prompt tokens a step takes beside the decoding streams.

A step evaluates one token for every stream that decodes, and fills up with prompt tokens. Each
prompt token makes the streams' next token later, each missing one makes the waiting prompts'
first token later, and a step with few prompt tokens costs up to twice as much per token: kernels
work on tiles, and below 64 rows attention goes row by row.

The policy, with its numbers:

- **Streams decode and one prompt waits**: the step is to take :data:`TARGET_S` (100 ms). Where the
  streams alone take more than half of that, the prompt gets as long as they do: a machine that is
  slow, or slow for a while, must not starve prompts for the sake of a target that it misses anyway.
- **More prompts wait**: their part of the step may be ``1 + 32 * (prompts - 1) / streams`` times as
  long, up to :data:`PATIENCE_S` (2 s) or four times what the streams take, and :data:`MAX_CHUNK`
  (256) tokens. Then many people wait for a first token, and streams that are joined late decode in
  small batches all the while. With steps of 100 ms whatever waits, 32 conversations of a 0.5B model
  on two cores took 1.4 times as long as with chunks of 256 tokens, and first tokens up to a minute.
  Where there are other clients, whose streams that slows, a client's prompts count as one.
- If that comes to fewer than :data:`EFFICIENT_CHUNK` (64) prompt tokens, 64 all the same if they
  take no longer than four times the target, or twice what the streams take; else what fits, but
  never fewer than :data:`MIN_CHUNK` (16), so that decoding starves no prompt.
- **Nobody decodes**: only a cancel or a new request waits for the end of the step, so it may take
  :data:`ALONE_S` (500 ms), whole batches where the machine is fast enough.
- Clients take turns, one for each step; a client's prompts are filled in the order of their
  arrival, each as far as possible before the next: the library splits a batch by sequences, and one
  long row is its best case. A short prompt whose turn it is does not wait for a long step either:
  where others wait too, its step takes :data:`EFFICIENT_CHUNK` tokens.

- **Answers in a prescribed form**: what such an answer may say next is found out within the step,
  in microseconds or, with a hostile schema, 10 ms and more. All streams take part whose mask takes
  up to :data:`CHEAP_MASK_S`, the dearer ones in turns, :data:`MASKS_S` (25 ms) in a step.

Costs are measured, never assumed (:class:`Costs`); until then a step takes 64 prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

TARGET_S = 0.1
ALONE_S = 0.5
PATIENCE_S = 2.0
MIN_CHUNK = 16
EFFICIENT_CHUNK = 64
MAX_CHUNK = 256
FIXED_CHUNK = 128
"""What a seeded request takes on an idle worker: sums depend on how a prompt is cut."""

CHEAP_MASK_S = 0.001
MASKS_S = 0.025

_SIZES = (16, 32, 64, 128, 256)
_SHORT_TAIL = 32
_LONGER_FOR_EACH = 32
_STREAMS_WAIT = 4  # times as long as they take themselves, where many prompts wait
_EFFICIENT_TARGETS = 4
_WEIGHT_OF_NEW = 0.25
_FADING = 0.998
_HOPE = 0.6
_DEARER = 1.25


class Costs:
    """Running estimates of what a step takes, in seconds.

    A step is ``decode(streams) + tokens * prompt(tokens)``. The cost of a prompt token is kept by
    size class, and for steps without streams apart, where it carries the pass over the weights.
    A class that was never seen is hoped to be better than the next smaller one, none is believed to
    be much worse than a smaller one, and estimates that are not renewed fade slowly: so every size
    is tried, and again when the machine has changed. The cost of streams is measured only without
    prompts, which may never happen; so a step that takes less than its streams are said to take
    corrects that.
    """

    def __init__(self) -> None:
        self._decode: dict[int, float] = {}
        self._prompt: tuple[dict[int, float], dict[int, float]] = ({}, {})

    def observe(self, streams: int, prompt_tokens: int, took_s: float) -> None:
        """A step with so many decoding streams and prompt tokens took ``took_s``."""
        if not prompt_tokens:
            _blend(self._decode, streams, took_s)
            return
        costs = self._prompt[streams > 0]
        for size in costs:
            costs[size] *= _FADING
        if took_s < self.decode_s(streams):
            self._decode[self._nearest(streams)] = took_s
        rest_s = max(took_s - self.decode_s(streams), took_s / 10)
        size = _class_of(prompt_tokens)
        _blend(costs, size, rest_s / prompt_tokens)
        for larger in costs:
            if larger > size:
                costs[larger] = min(costs[larger], costs[size] * _DEARER)

    def decode_s(self, streams: int) -> float:
        """A step that only decodes; from the nearest number of streams that was seen."""
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
        return costs[max(smaller)] * _HOPE if smaller else costs[min(costs)]


class Batching:
    """Plans the prompt part of a step; holds nothing but costs."""

    def __init__(self, batch_size: int, *, target_s: float = TARGET_S) -> None:
        self._batch_size = batch_size
        self._target_s = target_s
        self.costs = Costs()

    def plan(
        self,
        streams: int,
        waiting: Sequence[int],
        *,
        fixed: bool = False,
        crowd: int = 0,
        is_shared: bool = False,
    ) -> list[int]:
        """How many tokens of each waiting prompt the next step takes.

        ``streams`` decode, fewer than the batch has room for less :data:`MIN_CHUNK`. ``waiting``:
        tokens missing of each prompt, in order of turns, each at least 1. ``fixed``: as the same
        request got it last time, whatever was measured since. ``crowd``: how many they count
        as, if not each as one. ``is_shared``: they are several clients'.
        """
        room = self._batch_size - streams
        if not waiting or room <= 0:
            return [0] * len(waiting)
        size = FIXED_CHUNK if fixed else self._size(streams, crowd or len(waiting))
        if is_shared and waiting[0] <= EFFICIENT_CHUNK:
            size = min(size, EFFICIENT_CHUNK)
        return _share_out(waiting, min(size, room), room, takes_tail=not fixed)

    def _size(self, streams: int, prompts: int) -> int:
        alone = streams == 0
        if self.costs.prompt_s(EFFICIENT_CHUNK, alone=alone) is None:
            return EFFICIENT_CHUNK
        if alone:
            return max(MIN_CHUNK, self._largest(ALONE_S * self._target_s / TARGET_S, alone=True))
        decode_s = self.costs.decode_s(streams)
        fair_s = max(self._target_s - decode_s, decode_s)
        crowd = 1 + _LONGER_FOR_EACH * (prompts - 1) / streams
        most_s = max(PATIENCE_S, _STREAMS_WAIT * decode_s)
        size = self._largest(min(crowd * fair_s, most_s), alone=False)
        if size < EFFICIENT_CHUNK:
            token_s = self.costs.prompt_s(EFFICIENT_CHUNK, alone=False) or 0.0
            efficient_s = max(_EFFICIENT_TARGETS * self._target_s, 2 * decode_s)
            if EFFICIENT_CHUNK * token_s <= efficient_s:
                return EFFICIENT_CHUNK
        return min(MAX_CHUNK, max(MIN_CHUNK, size))

    def _largest(self, left_s: float, *, alone: bool) -> int:
        """The most prompt tokens that take no longer than ``left_s``; 0 if none."""
        if left_s <= 0:
            return 0
        above = self._batch_size + 1
        for size in reversed(_SIZES):
            token_s = self.costs.prompt_s(size, alone=alone) or 0.0
            fitting = above - 1 if left_s >= token_s * (above - 1) else int(left_s / token_s)
            if fitting >= size:
                return fitting - fitting % MIN_CHUNK
            above = size
        return 0


def choose_masks(masks_s: Sequence[float]) -> int:
    """Of streams with dear masks, in order of turns, the number that a step has time for."""
    left_s = MASKS_S
    for count, mask_s in enumerate(masks_s):
        left_s -= mask_s
        if left_s < 0:
            return max(1, count)
    return len(masks_s)


def _share_out(waiting: Sequence[int], size: int, room: int, *, takes_tail: bool) -> list[int]:
    """``size`` tokens, first come first served; a short rest of the last one comes along."""
    chunks = []
    for missing in waiting:
        chunk = min(missing, size)
        rest = missing - chunk
        if takes_tail and chunk >= EFFICIENT_CHUNK and rest < _SHORT_TAIL and missing <= room:
            chunk = missing
        chunks.append(chunk)
        size = max(0, size - chunk)
        room -= chunk
    return chunks


def _class_of(tokens: int) -> int:
    return max((size for size in _SIZES if size <= tokens), default=_SIZES[0])


def _blend(estimates: dict[int, float], key: int, value: float) -> None:
    old = estimates.get(key, value)
    estimates[key] = old + _WEIGHT_OF_NEW * (value - old)
