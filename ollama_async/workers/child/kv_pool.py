"""Prefix caching: assigns slots to prompts by their longest common prefix.

A slot keeps the tokens in its KV cache after its request has ended. The next request takes

1. the free slot of its owner with the longest common prefix, if that is at least half of what the
   slot holds: a conversation goes on;
2. otherwise an empty slot, or the least recently used one. The longest common prefix that any slot
   has, busy ones included, is copied into it, if that saves :data:`COPY_MIN_TOKENS` and is not out
   of proportion to what the library has to copy (it copies whole sequences).

Copying moves 20 to 500 KB per token. A prompt token costs a pass through the weights: two orders of
magnitude more. The last token of a prompt is always evaluated, for its logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from ollama_async.workers.child.engines.engine import Engine, EngineError
from ollama_async.workers.child.prefix_query import PrefixQuery

COPY_MIN_TOKENS = 32
_COPY_MAX_RATIO = 64
_ALL = 1 << 62


class Slot(msgspec.Struct):
    """One sequence of the KV cache, which holds ``tokens`` computed for ``owner``.

    Only the first ``reusable_tokens`` may be reused: after a context shift, the rest still depends
    on tokens that are gone. ``used_at`` counts requests, for the order of use.
    """

    index: int
    tokens: list[int] = []
    reusable_tokens: int = _ALL
    is_busy: bool = False
    used_at: int = 0
    owner: str = ""


class KVPool:
    """All slots of an engine. Keeps ``Slot.tokens`` correct whatever the engine refuses."""

    def __init__(self, engine: Engine) -> None:
        self.all = [Slot(index) for index in range(engine.facts.slots)]
        self._engine = engine
        self._uses = 0
        self._can_copy = engine.facts.can_trim  # a copy is of everything, then trimmed
        self._capacity = engine.facts.slots * engine.facts.num_ctx

    @property
    def used_share(self) -> float:
        """How full the KV cache is, 0 to 1."""
        return sum(len(slot.tokens) for slot in self.all) / self._capacity

    def take(self, query: PrefixQuery) -> Slot | None:
        """A slot for a request; None if all are busy. Computes nothing yet."""
        free = [slot for slot in self.all if not slot.is_busy]
        if not free:
            return None
        slot = min(free, key=lambda each: (bool(each.tokens), each.used_at))
        best, shared = _longest_match(query, free)
        is_own = best is not None and best.owner == query.owner
        if best is not None and is_own and 2 * shared >= len(best.tokens):
            slot = best
        self._uses += 1
        slot.used_at = self._uses
        slot.is_busy = True
        return slot

    def prepare(self, slot: Slot, query: PrefixQuery) -> int:
        """Make the slot hold as much of the prompt's prefix as can be had without computing, and
        give it to the query's owner.

        Returns how many tokens it holds then; never the whole prompt.

        :raises EngineError: the engine failed; the slot is empty.
        """
        most = len(query.prompt) - 1
        kept = min(query.shared_with(slot.tokens, slot.owner), slot.reusable_tokens)
        best, shared = _longest_match(query, self.all)
        saved = shared - kept
        if (
            best is not None
            and best is not slot
            and self._can_copy
            and saved >= COPY_MIN_TOKENS
            and saved * _COPY_MAX_RATIO >= len(best.tokens)
        ):
            length = query.round_down(min(shared, most))
            slot.tokens = []
            self._can_copy = self._engine.copy(best.index, slot.index, length)
            if self._can_copy:  # refused once, refused always
                slot.tokens = best.tokens[:length]
            kept = len(slot.tokens)
        length = query.round_down(min(kept, most))
        if length < len(slot.tokens):
            is_kept = self._engine.trim(slot.index, length)
            slot.tokens = slot.tokens[:length] if is_kept else []
        slot.reusable_tokens = _ALL
        slot.owner = query.owner
        return len(slot.tokens)

    def should_wait(self, query: PrefixQuery, prefilling: Iterable[PrefixQuery]) -> bool:
        """Whether it saves work to wait until a prompt that is ``prefilling`` is in its slot: it
        shares more with the query than any slot does now.
        """
        if not self._can_copy:
            return False
        coming = max((query.shared_with(each.prompt, each.owner) for each in prefilling), default=0)
        if coming < COPY_MIN_TOKENS:
            return False
        _, shared = _longest_match(query, self.all)
        return coming - shared >= COPY_MIN_TOKENS

    def shift(self, slot: Slot, keep: int, discard: int) -> None:
        """Context shift: forget ``discard`` tokens after the first ``keep``.

        :raises EngineError: the engine failed; the slot is empty.
        """
        try:
            self._engine.shift(slot.index, keep, discard)
        except EngineError:
            self.clear(slot)
            raise
        del slot.tokens[keep : keep + discard]
        slot.reusable_tokens = min(slot.reusable_tokens, keep)

    def clear(self, slot: Slot) -> None:
        """Forget what the slot holds: after an error that is unknown."""
        slot.tokens = []
        with contextlib.suppress(EngineError):  # the next request will find out
            self._engine.trim(slot.index, 0)


def _longest_match(query: PrefixQuery, slots: Iterable[Slot]) -> tuple[Slot | None, int]:
    """The slot with the longest reusable prefix, and its length; (None, 0) without any."""
    best, most = None, 0
    for slot in slots:
        if min(len(slot.tokens), slot.reusable_tokens) > most:
            shared = min(query.shared_with(slot.tokens, slot.owner), slot.reusable_tokens)
            if shared > most:
                best, most = slot, shared
    return best, most
