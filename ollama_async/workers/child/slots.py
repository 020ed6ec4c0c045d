"""The engine's slots: what each holds, who gets which, and what need not be computed again.

A slot remembers the tokens that its KV cache holds after its request has gone. The next request
takes

1. the free slot that begins as its prompt does, if that is at least half of what the slot holds: a
   conversation goes on;
2. else an empty slot, or the one unused for longest. The longest beginning that any slot shares
   with the prompt, busy ones included, is copied into it, if that saves :data:`COPY_MIN_TOKENS`
   and is not out of proportion to what the library has to copy (it copies whole sequences).

Copying moves some 20 to 500 KB for each token, a prompt token costs a pass through the weights: two
orders of magnitude more. The last token of a prompt is always evaluated, for its logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ollama_async.workers.child.engines.port import Engine, EngineError
from ollama_async.workers.child.prefix import shared_length

COPY_MIN_TOKENS = 32
_COPY_MAX_RATIO = 64


_ALL = 1 << 62


class Slot:
    """``tokens`` is what the KV cache holds; of these the first ``sound`` are worth reusing: when a
    context was shifted, the rest still knows what it was computed from. ``used_at`` counts
    requests, for the order of use.
    """

    __slots__ = ("index", "is_busy", "sound", "tokens", "used_at")

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.sound = _ALL
        self.is_busy = False
        self.used_at = 0


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

    def take(self, prompt: list[int], *, reuse: bool) -> Slot | None:
        """A slot for a request with this prompt; None if all are busy. Nothing is computed yet."""
        free = [slot for slot in self._all if not slot.is_busy]
        if not free:
            return None
        slot = min(free, key=_staleness)
        if reuse:
            best, shared = _find_best(free, prompt)
            if best is not None and 2 * shared >= len(best.tokens):
                slot = best
        self._uses += 1
        slot.used_at = self._uses
        slot.is_busy = True
        return slot

    def release(self, slot: Slot) -> None:
        slot.is_busy = False

    def prepare(self, slot: Slot, prompt: list[int], *, reuse: bool) -> int:
        """Make the slot begin as ``prompt`` does, as far as that can be had without computing.

        Returns how many tokens it holds then: all of them the prompt's, and not all of the prompt.

        :raises EngineError: the engine failed; the slot is empty.
        """
        if not reuse:
            return self._trim(slot, 0)
        kept = min(shared_length(slot.tokens, prompt), slot.sound)
        best, shared = _find_best(self._all, prompt)
        if best is not None and best is not slot and self._is_worth_copying(best, shared, kept):
            self._copy(best, slot, min(shared, len(prompt) - 1))
            kept = len(slot.tokens)
        return self._trim(slot, min(kept, len(prompt) - 1))

    def expects_more(self, prompt: list[int], filling: Iterable[list[int]]) -> bool:
        """Whether waiting until a prompt of ``filling`` is in its slot would save work: it has more
        in common with ``prompt`` than any slot has now.
        """
        if not self._can_copy:
            return False
        coming = max((shared_length(other, prompt) for other in filling), default=0)
        if coming < COPY_MIN_TOKENS:
            return False
        _, shared = _find_best(self._all, prompt)
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


def _find_best(slots: Iterable[Slot], prompt: list[int]) -> tuple[Slot | None, int]:
    """The slot that shares most with ``prompt``, and how much; None if none shares anything."""
    best, most = None, 0
    for slot in slots:
        if min(len(slot.tokens), slot.sound) > most:
            shared = min(shared_length(slot.tokens, prompt), slot.sound)
            if shared > most:
                best, most = slot, shared
    return best, most


def _staleness(slot: Slot) -> tuple[bool, int]:
    return bool(slot.tokens), slot.used_at
