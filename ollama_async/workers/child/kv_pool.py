"""The KV pool: gives requests slots and cells, and finds what need not be computed again.

A slot is one sequence of the KV cache. It is *running* while a request has it; afterwards it keeps
its tokens, *parked*, until its cells or the slot itself are needed. What a prompt shares with any
of them is looked up in a prefix tree. The next request takes

1. the parked slot of its owner with the longest common prefix, if that is at least half of what the
   slot holds: a conversation goes on;
2. otherwise an empty slot, or the parked one that was not used for longest. The longest common
   prefix that any slot has, running ones included, is copied into it, if that saves
   :data:`COPY_MIN_TOKENS`; or a longer one is restored from the prompt cache.

**Cells.** In a pool (:attr:`EngineFacts.is_pooled`) a copy shares the cells of its source, and
slots compete for cells. A request reserves cells for its prompt, less what it shares with running
slots, and for :data:`RESERVED_ANSWER` tokens of its answer; one that is longer has the next
:data:`RESERVED_AHEAD` reserved all the time. The request waits until its cells fit beside what
running slots hold and have reserved. Parked slots do not count, since they give way, least recently
used first, and are saved in the prompt cache. Long answers may use up what was reserved for none of
them. Then the youngest running request loses its cells, and later goes on (:mod:`.preemption`).

With separate caches each slot has as many cells as it can use, so the same rules admit every
request that finds a slot. There a copy moves 20 to 500 KB per token, which is still two orders of
magnitude less than a pass through the weights.

The last token of a prompt is always evaluated, for its logits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from operator import attrgetter

import msgspec
import numpy as np

from ollama_async.workers.child.cell_ledger import CellLedger
from ollama_async.workers.child.engines.engine import Engine, EngineError, Row, SavedState
from ollama_async.workers.child.prefix_query import PrefixQuery
from ollama_async.workers.child.prefix_tree import PrefixTree
from ollama_async.workers.child.prompt_cache import CachedPrefix, NoPromptCache, PromptCache

COPY_MIN_TOKENS = 32

RESERVED_ANSWER = 512
"""Most answers of chats are shorter. Reserving all that a request may generate would keep most of
the pool empty, since clients rarely set a limit; reserving nothing would admit requests only to
take their cells away again, and compute their prompts twice."""

RESERVED_AHEAD = 128
"""Whoever is admitted, or comes back, decodes so many steps before cells can run out (again)."""

_COPY_MAX_RATIO = 64
"""Separate caches are copied whole: not for a small part of a long sequence."""
_STATE_LIMIT_BYTES = 256 << 20
_ALL = 1 << 62


class Slot(msgspec.Struct):
    """One sequence of the KV cache, which holds ``tokens`` computed for ``owner``.

    Only the first ``reusable_tokens`` may be reused: after a context shift, the rest still depends
    on tokens that are gone. ``used_at`` grows each time a request begins or ends in a slot.
    While it is ``is_running``, it has cells ``reserved`` for so many tokens, and will hold at most
    ``limit``. ``indexed``: those that the prefix tree knows. ``restored``: those that came from the
    prompt cache when the request was admitted.
    """

    index: int
    tokens: list[int] = []
    reusable_tokens: int = _ALL
    is_running: bool = False
    used_at: int = 0
    owner: str = ""
    reserved: int = 0
    limit: int = 0
    indexed: int = 0
    restored: int = 0

    @property
    def is_shifted(self) -> bool:
        """Its tokens computed afresh would not give what it holds."""
        return self.reusable_tokens < len(self.tokens)

    @property
    def awaited(self) -> int:
        """Cells that it may still take of those that are reserved."""
        length = len(self.tokens)
        return max(self.reserved - length, min(RESERVED_AHEAD, self.limit - length), 0)


_used_at = attrgetter("used_at")

_Source = tuple[Slot | CachedPrefix, int]
"""Where a slot gets its prefix from, which may be the slot itself, and how many tokens."""


class KVPool:
    """All slots of an engine. Keeps ``Slot.tokens`` correct whatever the engine refuses."""

    def __init__(self, engine: Engine, cache: PromptCache | None = None) -> None:
        facts = engine.facts
        self.all = [Slot(index) for index in range(facts.sequences)]
        self._engine = engine
        self._cache: PromptCache = NoPromptCache() if cache is None else cache
        self._tree = PrefixTree()
        self._is_pooled = facts.is_pooled
        self._ledger = CellLedger(facts.sequences, facts.cells, shares=facts.is_pooled)
        self._uses = 0
        self._can_copy = facts.can_trim  # a copy is of everything, then trimmed

    @property
    def used_share(self) -> float:
        """The share of the cells that running slots hold, 0 to 1."""
        return self._ledger.held_by(self._running()) / self._ledger.capacity

    @property
    def used_cells(self) -> int:
        """Those of parked slots included."""
        return self._ledger.used

    # Admission

    def admit(self, query: PrefixQuery, num_ctx: int, max_tokens: int) -> Slot | None:
        """A slot for a request, which holds as much of the prompt's prefix as can be had without
        computing; never the whole prompt. None: all slots are running, or the cells do not suffice.

        ``num_ctx``: tokens that prompt and answer may have, ``max_tokens``: those of the answer.

        :raises EngineError: the engine failed; the slot that was meant for the request is empty.
        """
        slot = self._choose(query)
        if slot is None:
            return None
        source = self._source(slot, query)
        if not self._reserve(slot, query, source, num_ctx, max_tokens):
            return None
        self._use(slot)
        try:
            self._fill(slot, query, source)
        except EngineError:
            self.clear(slot)
            self.release(slot)
            raise
        return slot

    def readmit(
        self,
        slot: Slot,
        query: PrefixQuery,
        num_ctx: int,
        max_tokens: int,
        saved: SavedState | None = None,
    ) -> bool:
        """As :meth:`admit`, for a request that was preempted and still has its slot. ``saved``: the
        state of all but the last token of the prompt, if that cannot be computed again.
        """
        source = self._source(slot, query)
        if not self._reserve(slot, query, source, num_ctx, max_tokens):
            return False
        if saved is None:
            self._fill(slot, query, source)
        else:
            self._restore_saved(slot, query.prompt[:-1], saved)
        return True

    def should_wait(self, query: PrefixQuery, prefilling: Iterable[PrefixQuery]) -> bool:
        """Whether it saves work to wait until a prompt that is ``prefilling`` is in its slot: it
        shares more with the query than any slot does now. In a pool, no token of a shared prefix is
        computed or stored twice.
        """
        if not self._can_copy:
            return False
        coming = max((query.shared_with(each.prompt, each.owner) for each in prefilling), default=0)
        if coming < COPY_MIN_TOKENS:
            return False
        _, shared = self._longest_match(query)
        return coming - shared >= (1 if self._is_pooled else COPY_MIN_TOKENS)

    def _choose(self, query: PrefixQuery) -> Slot | None:
        free = [slot for slot in self.all if not slot.is_running]
        if not free:
            return None
        best, shared = self._longest_match(query, parked_only=True)
        if best is not None and best.owner == query.owner and 2 * shared >= len(best.tokens):
            return best
        return min(free, key=lambda each: (bool(each.tokens), each.used_at))

    def _reserve(
        self, slot: Slot, query: PrefixQuery, source: _Source, num_ctx: int, max_tokens: int
    ) -> bool:
        """Let the slot run, if its cells can be had."""
        limit = min(num_ctx, len(query.prompt) + max_tokens)
        reserved = min(limit, len(query.prompt) + RESERVED_ANSWER)
        if self._is_pooled:
            running = self._running()
            holder, length = source
            shared = 0
            if isinstance(holder, Slot):
                shared = self._ledger.held_of(holder.index, length, running)
            taken = self._ledger.held_by(running) + sum(each.awaited for each in self.all)
            if taken + reserved - shared > self._ledger.capacity:
                return False
        slot.reserved, slot.limit = reserved, limit
        slot.is_running = True
        return True

    def _running(self) -> set[int]:
        return {slot.index for slot in self.all if slot.is_running}

    # Reuse

    def _fill(self, slot: Slot, query: PrefixQuery, source: _Source) -> None:
        """Make the slot hold the longest prefix of the prompt, and give it to the query's owner."""
        holder, length = source
        slot.restored = 0
        if isinstance(holder, CachedPrefix):
            self._vacate(slot)
            if self._restore(slot, holder, length, query):
                slot.owner = query.owner
                slot.restored = len(slot.tokens)
                return
            holder, length = self._source(slot, query, uses_cache=False)
        if isinstance(holder, Slot) and holder is not slot:
            self._vacate(slot)
            if self._engine.copy(holder.index, slot.index, length):
                self._ledger.copy(holder.index, slot.index, length)
                self._set(slot, holder.tokens[:length])
            elif self._engine.facts.can_trim_restored:  # else it may be this source
                self._can_copy = False  # refused once, refused always
        elif length < len(slot.tokens):
            if 2 * length < len(slot.tokens) and not self._is_held_elsewhere(slot):
                self._keep(slot)
            self._trim(slot, length)
        slot.reusable_tokens = _ALL
        slot.owner = query.owner

    def _source(self, slot: Slot, query: PrefixQuery, *, uses_cache: bool = True) -> _Source:
        """Where the slot gets its prefix from, which may be the slot itself, and its length."""
        most = len(query.prompt) - 1
        kept = min(query.shared_with(slot.tokens, slot.owner), slot.reusable_tokens)
        best, shared = self._longest_match(query)
        found: _Source = slot, kept
        saved = shared - kept
        if (
            best is not None
            and best is not slot
            and self._can_copy
            and saved >= (1 if self._is_pooled and not kept else COPY_MIN_TOKENS)
            and (self._is_pooled or saved * _COPY_MAX_RATIO >= len(best.tokens))
        ):
            found = best, shared
        entry = self._cache.find(query) if uses_cache else None
        if entry is not None and entry.length - found[1] >= COPY_MIN_TOKENS:
            found = entry, entry.length
        holder, length = found
        return holder, query.round_down(min(length, most))

    def _restore(self, slot: Slot, entry: CachedPrefix, length: int, query: PrefixQuery) -> bool:
        """Fill the empty slot from the prompt cache. What others hold of it is shared with them."""
        if not self.make_room(entry.size) or not self._cache.restore(entry, slot.index):
            return False
        self._ledger.append(slot.index, entry.size)
        slot.reusable_tokens = _ALL
        slot.tokens = [*query.prompt[:length], *[0] * (entry.size - length)]
        self._trim(slot, length)
        other, shared = self._longest_match(query, but=slot)
        shared = query.round_down(min(shared, len(slot.tokens)))
        if other is not None and self._is_pooled and shared >= COPY_MIN_TOKENS:
            self._engine.share(other.index, slot.index, shared)
            self._ledger.share(other.index, slot.index, shared)
        return True

    def _restore_saved(self, slot: Slot, tokens: list[int], saved: SavedState) -> None:
        if not self.make_room(len(tokens)) or not self._engine.restore(
            slot.index, saved, len(tokens)
        ):
            raise EngineError("the contents of a slot cannot be restored")
        self._ledger.append(slot.index, len(tokens))
        slot.reusable_tokens = 0
        self._set(slot, tokens)

    def _longest_match(
        self, query: PrefixQuery, *, parked_only: bool = False, but: Slot | None = None
    ) -> tuple[Slot | None, int]:
        """The slot with the longest prefix that may be reused, and its length."""
        best, most = None, 0
        if not query.reuses:
            return best, most
        for length, members in self._tree.matches(query.prompt):
            if length <= most:
                break
            for index in members:
                slot = self.all[index]
                usable = length if slot.owner == query.owner else min(length, query.public_tokens)
                is_candidate = slot is not but and not (parked_only and slot.is_running)
                if usable > most and is_candidate:
                    best, most = slot, usable
        return best, most

    # What slots hold

    def add_cells(self, rows: Iterable[Row]) -> None:
        """The engine has evaluated these; the hot path."""
        append = self._ledger.append
        for row in rows:
            append(row.slot, len(row.tokens))

    def trim_drafts(self, slot: Slot) -> None:
        """Remove what was evaluated after the slot's tokens."""
        self._engine.trim(slot.index, len(slot.tokens))
        self._ledger.trim(slot.index, len(slot.tokens))

    def save(self, slot: Slot) -> SavedState | None:
        """What the slot holds, for :meth:`readmit`; None: that is impossible now."""
        size = self._engine.state_bytes(slot.index)
        if not 0 < size <= _STATE_LIMIT_BYTES:
            return None
        state = np.empty(size, np.uint8)
        return state if self._engine.save(slot.index, state) else None

    def add_prompt(self, slot: Slot, tokens: list[int]) -> None:
        """Of a prompt, these are in the slot now; others may reuse them."""
        slot.tokens += tokens
        self._index(slot)

    def release(self, slot: Slot) -> None:
        """The request has ended; what the slot holds is parked."""
        slot.is_running = False
        slot.reserved = slot.limit = 0
        self._use(slot)
        self._index(slot)

    def shift(self, slot: Slot, keep: int, discard: int) -> None:
        """Context shift: forget ``discard`` tokens after the first ``keep``.

        :raises EngineError: the engine failed; the slot is empty.
        """
        try:
            self._engine.shift(slot.index, keep, discard)
        except EngineError:
            self.clear(slot)
            raise
        if self._ledger.shared(slot.index):
            self._ledger.unshare(slot.index)
        del slot.tokens[keep : keep + discard]
        self._ledger.trim(slot.index, len(slot.tokens))
        slot.reusable_tokens = min(slot.reusable_tokens, keep)
        self._set(slot, slot.tokens)

    def clear(self, slot: Slot) -> None:
        """Forget what the slot holds: after an error that is unknown."""
        with contextlib.suppress(EngineError):  # the next request will find out
            self._engine.trim(slot.index, 0)
        self._ledger.trim(slot.index, 0)
        slot.reusable_tokens = _ALL
        self._set(slot, [])

    def _trim(self, slot: Slot, length: int) -> None:
        """Keep the first ``length`` tokens, or none if the model cannot forget a part."""
        is_kept = self._engine.trim(slot.index, length)
        tokens = slot.tokens[:length] if is_kept else []
        self._ledger.trim(slot.index, len(tokens))
        self._set(slot, tokens)

    def _set(self, slot: Slot, tokens: list[int]) -> None:
        slot.tokens = tokens
        slot.indexed = min(len(tokens), slot.reusable_tokens)
        self._tree.set(slot.index, tokens[: slot.indexed])

    def _index(self, slot: Slot) -> None:
        """Tell the prefix tree of tokens that were added."""
        end = min(len(slot.tokens), slot.reusable_tokens)
        if slot.indexed < end:
            self._tree.extend(slot.index, slot.tokens[slot.indexed : end])
            slot.indexed = end

    def _use(self, slot: Slot) -> None:
        self._uses += 1
        slot.used_at = self._uses

    # Giving way

    def make_room(self, cells: int) -> bool:
        """Whether so many cells are free, after parked slots have given way if need be."""
        while self._ledger.free < cells:
            running = self._running()
            parked = [
                slot
                for slot in self._parked()
                if self._ledger.held_of(slot.index, len(slot.tokens), running) < len(slot.tokens)
            ]
            if not parked:
                return False
            self._vacate(min(parked, key=_used_at))
        return True

    def make_room_to_shift(self, slot: Slot) -> bool:
        """As :meth:`make_room`, for :meth:`shift`: the engine moves no cells that are shared, so
        that the slot gets cells of its own first, and it may need one more for that.
        """
        while (shared := self._ledger.shared(slot.index)) and self._ledger.free <= shared:
            parked = self._parked()
            if not parked:
                return False
            self._vacate(min(parked, key=_used_at))
        return True

    def _parked(self) -> list[Slot]:
        return [slot for slot in self.all if slot.tokens and not slot.is_running]

    def preempt(self, slot: Slot) -> None:
        """Take all cells from a running slot; its request keeps it until :meth:`readmit`."""
        slot.reserved = slot.limit = 0
        self._index(slot)
        self._vacate(slot)

    def _vacate(self, slot: Slot) -> None:
        """Empty the slot; what may be reused of it is saved."""
        if slot.tokens:
            if not self._is_held_elsewhere(slot):
                self._keep(slot)
            self.clear(slot)

    def save_parked(self, limit_s: float) -> None:
        """Save parked slots, those that were used last first, for so long at most."""
        end_s = time.monotonic() + limit_s
        saved = []
        for slot in sorted(self._parked(), key=_used_at, reverse=True):
            if time.monotonic() < end_s:
                self._keep(slot)
                saved.append(slot)
        for slot in reversed(saved):  # the one that was used last gives way last
            self._keep(slot)

    def _keep(self, slot: Slot) -> None:
        if slot.is_shifted:
            self._trim(slot, slot.reusable_tokens)
        if slot.tokens:
            self._cache.keep(slot.index, slot.tokens, slot.owner)

    def _is_held_elsewhere(self, slot: Slot) -> bool:
        """Whether another slot holds nearly as much of it."""
        _, shared = self._longest_match(PrefixQuery(slot.tokens, slot.owner), but=slot)
        return self._can_copy and len(slot.tokens) - shared < COPY_MIN_TOKENS
