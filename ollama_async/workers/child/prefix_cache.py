"""The engine's slots: what each holds, who gets which, and what need not be computed again.

A slot remembers the tokens that its KV cache holds after its request has gone. The next request
takes

1. the free slot of its owner that begins as its prompt does, if that is at least half of what the
   slot holds: a conversation goes on;
2. else an empty slot, or the one unused for longest. The longest beginning that any slot shares
   with the prompt, busy ones included, is copied into it, if that saves :data:`COPY_MIN_TOKENS`
   and is not out of proportion to what the library has to copy (it copies whole sequences).

Copying moves some 20 to 500 KB for each token, a prompt token costs a pass through the weights: two
orders of magnitude more. The last token of a prompt is always evaluated, for its logits.

Time and counters tell a client what it was spared, and so whether its guess of a prompt was right.
Where that matters each slot has an owner, and serves others with what the model itself brings only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from ollama_async.workers.child.engines.engine import Engine, EngineError

COPY_MIN_TOKENS = 32
_COPY_MAX_RATIO = 64


_ALL = 1 << 62


class Slot:
    """``tokens`` is what the KV cache holds; of these the first ``sound`` are worth reusing: when a
    context was shifted, the rest still knows what it was computed from. ``used_at`` counts
    requests, for the order of use. ``owner`` is whose the tokens are.
    """

    __slots__ = ("index", "is_busy", "owner", "sound", "tokens", "used_at")

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.sound = _ALL
        self.is_busy = False
        self.used_at = 0
        self.owner = ""


class Claim(msgspec.Struct, frozen=True):
    """A prompt and what of the slots may serve it: all of its ``owner``'s, and of those of others
    no more than the first ``public`` tokens. ``reuses``: whether anything may.
    """

    prompt: list[int]
    owner: str = ""
    public: int = 0
    reuses: bool = True

    def shared_with(self, tokens: list[int], owner: str) -> int:
        """How many tokens at the beginning it may have in common with ``owner``'s ``tokens``."""
        if not self.reuses:
            return 0
        shared = shared_length(tokens, self.prompt)
        return shared if owner == self.owner else min(shared, self.public)

    def find_best(self, slots: Iterable[Slot]) -> tuple[Slot | None, int]:
        """The slot that serves it best, and with how many tokens; None: none serves it at all."""
        best, most = None, 0
        for slot in slots:
            if min(len(slot.tokens), slot.sound) > most:
                shared = min(self.shared_with(slot.tokens, slot.owner), slot.sound)
                if shared > most:
                    best, most = slot, shared
        return best, most


class Slots:
    """All slots of an engine; keeps ``Slot.tokens`` true whatever the engine refuses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._all = [Slot(index) for index in range(engine.facts.slots)]
        self._uses = 0
        self._can_copy = engine.facts.can_trim  # a copy is of everything, then trimmed
        self._capacity = engine.facts.slots * engine.facts.num_ctx

    @property
    def used_share(self) -> float:
        """How full the KV cache is, 0 to 1."""
        return sum(len(slot.tokens) for slot in self._all) / self._capacity

    def take(self, claim: Claim) -> Slot | None:
        """A slot for a request; None if all are busy. Nothing is computed yet."""
        free = [slot for slot in self._all if not slot.is_busy]
        if not free:
            return None
        slot = min(free, key=_staleness)
        best, shared = claim.find_best(free)
        is_own = best is not None and best.owner == claim.owner
        if best is not None and is_own and 2 * shared >= len(best.tokens):
            slot = best
        self._uses += 1
        slot.used_at = self._uses
        slot.is_busy = True
        return slot

    def release(self, slot: Slot) -> None:
        slot.is_busy = False

    def prepare(self, slot: Slot, claim: Claim) -> int:
        """Make the slot begin as the prompt does, as far as that can be had without computing, and
        the claim's owner its owner.

        Returns how many tokens it holds then: all of them the prompt's, and not all of the prompt.

        :raises EngineError: the engine failed; the slot is empty.
        """
        most = len(claim.prompt) - 1
        kept = min(claim.shared_with(slot.tokens, slot.owner), slot.sound)
        best, shared = claim.find_best(self._all)
        if best is not None and best is not slot and self._is_worth_copying(best, shared, kept):
            self._copy(best, slot, min(shared, most))
            kept = len(slot.tokens)
        kept = self._trim(slot, min(kept, most))
        slot.owner = claim.owner
        return kept

    def expects_more(self, claim: Claim, filling: Iterable[Claim]) -> bool:
        """Whether waiting until a prompt of ``filling`` is in its slot would save work: it serves
        ``claim`` with more than any slot has now.
        """
        if not self._can_copy:
            return False
        coming = max((claim.shared_with(each.prompt, each.owner) for each in filling), default=0)
        if coming < COPY_MIN_TOKENS:
            return False
        _, shared = claim.find_best(self._all)
        return coming - shared >= COPY_MIN_TOKENS

    def shift(self, slot: Slot, keep: int, discard: int) -> None:
        """Forget ``discard`` tokens after the first ``keep``.

        :raises EngineError: the engine failed; the slot is empty.
        """
        try:
            self._engine.shift(slot.index, keep, discard)
        except EngineError:
            self.empty(slot)
            raise
        del slot.tokens[keep : keep + discard]
        slot.sound = min(slot.sound, keep)

    def empty(self, slot: Slot) -> None:
        """Forget what the slot holds: after an error nobody knows what it is."""
        slot.tokens = []
        with contextlib.suppress(EngineError):  # the next request will find out
            self._engine.trim(slot.index, 0)

    def _is_worth_copying(self, source: Slot, shared: int, kept: int) -> bool:
        saved = shared - kept
        return (
            self._can_copy
            and saved >= COPY_MIN_TOKENS
            and saved * _COPY_MAX_RATIO >= len(source.tokens)
        )

    def _copy(self, source: Slot, target: Slot, length: int) -> None:
        target.tokens = []
        if self._engine.copy(source.index, target.index, length):
            target.tokens = source.tokens[:length]
        else:
            self._can_copy = False  # refused once, refused always

    def _trim(self, slot: Slot, length: int) -> int:
        if length < len(slot.tokens):
            is_kept = self._engine.trim(slot.index, length)
            slot.tokens = slot.tokens[:length] if is_kept else []
        slot.sound = _ALL
        return len(slot.tokens)


def _staleness(slot: Slot) -> tuple[bool, int]:
    return bool(slot.tokens), slot.used_at


def shared_length(one: list[int], other: list[int]) -> int:
    """The number of equal tokens at the beginning.

    Slices are compared, not tokens one by one: 4,000 tokens take about 20 µs.
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    size = 8  # most pairs differ early
    while low < high:
        middle = min(low + size, (low + high + 1) // 2)
        if one[low:middle] == other[low:middle]:
            low = middle
            size *= 2
        else:
            high = middle - 1
            size = high - low
    return low
