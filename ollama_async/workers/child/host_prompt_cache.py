"""The prompt cache in host memory: which states are kept, who finds them, which give way.

What was neither saved nor found for longest gives way first, or what was restored whole, because
its slot will be saved again.

- Of one owner's states, none is the beginning of another: the longer one replaces it.
- Lookups obey the rules of :class:`~ollama_async.workers.child.prefix_query.PrefixQuery`.
- A sequence with images or recordings is not saved: the positions that these take are not part of
  its state.
- The memory may come from a former worker (:mod:`.state_memory`). A state that cannot be restored
  is dropped, and its tokens are computed again.

States of one owner are kept in the order of their tokens, so those that share most with a prompt
are its neighbours: a lookup compares with a few states, however many there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict, defaultdict
from operator import attrgetter

from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.prefix_query import PrefixQuery, common_prefix_length
from ollama_async.workers.child.prompt_cache import CachedPrefix
from ollama_async.workers.child.state_memory import MAX_STATES, StateMemory, StoredState

MIN_TOKENS = 32
"""Computing fewer tokens again is as cheap as copying a state."""

_TOKEN_BYTES = array("i").itemsize
_tokens_of = attrgetter("tokens")


class HostPromptCache:
    """The :class:`~ollama_async.workers.child.prompt_cache.PromptCache` in ``memory``."""

    def __init__(self, engine: Engine, memory: StateMemory) -> None:
        self._engine = engine
        self._memory = memory
        self._limit_bytes = self._applied_bytes = memory.capacity
        self._states: OrderedDict[int, StoredState] = OrderedDict()  # the first gives way first
        self._all: list[StoredState] = []  # in the order of their tokens, as those of each owner
        self._owned: defaultdict[str, list[StoredState]] = defaultdict(list)
        self._free = list(reversed(range(MAX_STATES)))
        self._last_key = 0
        for state in memory.find_states():
            self._free.remove(state.index)
            self._insert(state)

    @property
    def count(self) -> int:
        """Of states."""
        return len(self._states)

    @property
    def used_bytes(self) -> int:
        return sum(state.size for state in self._states.values())

    def find(self, query: PrefixQuery) -> CachedPrefix | None:
        if not self._states or not query.reuses:
            return None
        end = min((at for at, _ in query.spans), default=len(query.prompt))  # no state has images
        prompt = array("i", query.prompt[:end]).tobytes()
        best, length = _nearest(self._owned.get(query.owner, []), prompt)
        if query.public_tokens > length:
            other, shared = _nearest(self._all, prompt)
            if min(shared, query.public_tokens) > length:
                best, length = other, min(shared, query.public_tokens)
        length = min(length, len(query.prompt) - 1)
        if best is None or (length < best.length and not self._engine.facts.can_trim_restored):
            return None
        self._touch(best)
        return CachedPrefix(best.key, length, best.length)

    def keep(self, slot: int, tokens: list[int], owner: str) -> None:
        if len(tokens) < MIN_TOKENS or min(tokens) < 0:
            return
        packed = array("i", tokens).tobytes()
        nearest, stored = _nearest(self._owned.get(owner, []), packed)
        if nearest is not None and len(tokens) - stored < MIN_TOKENS:
            self._touch(nearest)
            return
        size = self._engine.state_bytes(slot)
        if not size or not self._memory.can_hold(packed, owner, size):
            return
        if nearest is not None and stored == nearest.length:
            self._remove(nearest)  # the conversation has gone on
        self._save(slot, packed, owner, size)

    def restore(self, match: CachedPrefix, slot: int) -> bool:
        state = self._states.get(match.key)
        if state is None:
            return False
        self._memory.hide(state)  # a state that crashes the worker must not crash the next one
        view = self._memory.view(state)
        if not self._is_safe(state) or not self._engine.restore(slot, view, state.length):
            self._engine.trim(slot, 0)
            self._remove(state)
            return False
        self._memory.show(state)
        if match.length == state.length:
            self._states.move_to_end(state.key, last=False)
        return True

    def request_limit(self, limit_bytes: int) -> None:
        """Any thread: see :meth:`apply_limit`."""
        self._limit_bytes = limit_bytes

    def apply_limit(self) -> None:
        """Use no more memory than was requested, and give the rest back to the system."""
        if self._limit_bytes == self._applied_bytes:
            return
        self._applied_bytes = limit_bytes = self._limit_bytes
        for state in list(self._states.values()):
            if state.offset + state.size > limit_bytes:
                self._remove(state)
        self._memory.set_limit(limit_bytes)

    def _is_safe(self, state: StoredState) -> bool:
        """Whether this worker wrote it, or another one something that can be restored."""
        if not state.is_own and self._memory.is_intact(state):
            view = self._memory.view(state)
            state.is_own = self._engine.is_acceptable(view, state.length)
        return state.is_own

    def _save(self, slot: int, tokens: bytes, owner: str, size: int) -> None:
        while not self._free or not (
            state := self._memory.allocate(self._free[-1], tokens, owner, size)
        ):
            self._remove(next(iter(self._states.values())))
        self._free.pop()
        if self._engine.save(slot, self._memory.view(state)):
            self._memory.publish(state)
            self._insert(state)
        else:
            self._memory.remove(state)
            self._free.append(state.index)

    def _insert(self, state: StoredState) -> None:
        self._last_key += 1
        state.key = self._last_key
        self._states[state.key] = state
        for states in (self._all, self._owned[state.owner]):
            states.insert(bisect_left(states, state.tokens, key=_tokens_of), state)

    def _remove(self, state: StoredState) -> None:
        self._memory.remove(state)
        self._free.append(state.index)
        del self._states[state.key]
        own = self._owned[state.owner]
        for states in (self._all, own):
            at = bisect_left(states, state.tokens, key=_tokens_of)
            while states[at] is not state:  # those of several owners may be equal
                at += 1
            del states[at]
        if not own:
            del self._owned[state.owner]

    def _touch(self, state: StoredState) -> None:
        self._states.move_to_end(state.key)
        self._memory.touch(state)


def _nearest(states: list[StoredState], tokens: bytes) -> tuple[StoredState | None, int]:
    """The state with the longest common prefix, and its length; (None, 0) without any."""
    best, most = None, 0
    at = bisect_left(states, tokens, key=_tokens_of)
    for state in states[max(0, at - 1) : at + 1]:
        shared = common_prefix_length(state.tokens, tokens) // _TOKEN_BYTES
        if shared > most:
            best, most = state, shared
    return best, most
