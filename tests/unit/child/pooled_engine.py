"""The fake engine with a pool: cells are objects, and a copy holds those of its source."""

import msgspec
import numpy as np

from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.prompt_cache import CachedPrefix
from tests.unit.child.conftest import FakeEngine


class PooledEngine(FakeEngine):
    """``cells``: that all slots share. Fails as the library does when there are too few.
    ``refusing``: the name of a call that fails now.
    """

    def __init__(self, slots, num_ctx, cells, *, sequences=0, **options):
        sequences = sequences or slots + 4
        super().__init__(sequences, num_ctx, **options)
        self.facts = msgspec.structs.replace(
            self.facts, slots=slots, cells=cells, is_pooled=True, is_invariant=True
        )
        self.held = [[] for _ in range(sequences)]
        self.most_used = 0
        self.refusing = ""

    @property
    def used(self):
        return len({id(cell) for cells in self.held for cell in cells})

    def _fail_if_refusing(self, call):
        if self.refusing == call:
            raise EngineError("out of order")

    def begin(self, *args, **options):
        self._fail_if_refusing("begin")
        super().begin(*args, **options)

    def _evaluate(self, rows):
        for row in rows:
            self._add(row.slot, len(row.tokens))
        super()._evaluate(rows)
        self.most_used = max(self.most_used, self.used)

    def _add(self, slot, count):
        if self.used + count > self.facts.cells:
            raise EngineError("no room in the KV cache")
        self.held[slot] += [object() for _ in range(count)]

    def trim(self, slot, length):
        del self.held[slot][length:]
        return super().trim(slot, length)

    def copy(self, source, target, length):
        assert length <= len(self.held[source])
        if self.refusing == "copy":
            self.trim(target, 0)
            return False
        self.held[target] = self.held[source][:length]
        return super().copy(source, target, length)

    def share(self, source, target, length):
        self._fail_if_refusing("share")
        assert self.cache[source][:length] == self.cache[target][:length]
        assert length <= min(len(self.cache[source]), len(self.cache[target]))
        self.held[target][:length] = self.held[source][:length]

    def shift(self, slot, keep, discard):
        self._fail_if_refusing("shift")
        others = {id(c) for at, cells in enumerate(self.held) if at != slot for c in cells}
        if any(id(cell) in others for cell in self.held[slot]):
            count = len(self.held[slot])
            self.held[slot] = []
            self._add(slot, count)
        super().shift(slot, keep, discard)
        del self.held[slot][keep : keep + discard]

    def save(self, slot, state):
        return self.refusing != "save" and super().save(slot, state)

    def restore(self, slot, state, length):
        self.trim(slot, 0)
        if self.refusing == "restore":
            return False
        self._add(slot, length)
        return super().restore(slot, state, length)


class FakePromptCache:
    """Keeps everything."""

    def __init__(self, engine):
        self._engine = engine
        self.entries = []

    def keep(self, slot, tokens, owner):
        assert self._engine.cache[slot] == tokens
        state = np.empty(self._engine.state_bytes(slot), np.uint8)
        if self._engine.save(slot, state):
            self.entries.append((list(tokens), owner, state))

    def find(self, query):
        best = CachedPrefix(-1, 0, 0)
        for key, (tokens, owner, _) in enumerate(self.entries):
            length = query.round_down(min(query.shared_with(tokens, owner), len(query.prompt) - 1))
            if length > best.length:
                best = CachedPrefix(key, length, len(tokens))
        return best if best.length else None

    def restore(self, match, slot):
        tokens, _, state = self.entries[match.key]
        return self._engine.restore(slot, state, len(tokens))
