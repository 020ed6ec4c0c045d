"""An engine whose answers show what its KV cache holds."""

import numpy as np
import pytest

from ollama_async.workers.child.engines.engine import MAX_DRAFTS, EngineError, EngineFacts

WORDS = 64
END = WORDS


class FakeEngine:
    """Tokens are numbers below :data:`WORDS`; the next one is a function of all before it, so a
    wrong or missing token in the cache, or one of another request, changes the answer.

    ``length``: after so many tokens in the slot comes the end. ``failing``: slots whose steps fail.
    """

    projector = None

    def __init__(
        self,
        slots=4,
        num_ctx=64,
        *,
        batch_size=64,
        length=None,
        can_trim=True,
        can_copy=True,
        can_draft=False,
    ):
        self.facts = EngineFacts(
            slots=slots,
            sequences=slots,
            num_ctx=num_ctx,
            cells=slots * num_ctx,
            vocab_size=WORDS + 1,
            weights_bytes=1,
            cache_bytes=1,
            compute_bytes=1,
            device_bytes=0,
            can_shift=can_trim,
            can_trim=can_trim,
            can_draft=can_draft,
        )
        self.batch_size = batch_size
        self.length = length or (lambda _slot: False)
        self.can_copy = can_copy
        self.cache = [[] for _ in range(slots)]
        self.begun = [False] * slots
        self.steps = []
        self.copies = []
        self.failing = set()

    def tokenize(self, text, **_options):
        return [ord(letter) % WORDS for letter in text]

    def piece(self, token):
        return b"" if token == END else f"<{token}>".encode()

    def piece_with_control(self, token):
        return self.piece(token)

    def is_end(self, token):
        return token == END

    def begin(self, slot, _sampling, _prompt, constraint=None, *, needs_logits=False):  # noqa: ARG002
        assert not self.begun[slot]
        assert constraint is None
        self.begun[slot] = True

    def end(self, slot):
        assert self.begun[slot]
        self.begun[slot] = False

    def step(self, rows):
        self._evaluate(rows)
        return [self._next(row.slot) for row in rows if row.samples]

    def verify(self, rows):
        assert sum(row.drafts for row in rows) <= MAX_DRAFTS
        self._evaluate(rows)
        return [self._verify(row) for row in rows]

    def _verify(self, row):
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        for count, draft in enumerate([*drafts, None]):
            whole = self.cache[row.slot]
            self.cache[row.slot] = whole[: len(whole) - row.drafts + count]
            token = self._next(row.slot)
            self.cache[row.slot] = whole
            yield token
            if token != draft or token == END:
                return

    def _evaluate(self, rows):
        assert 0 < sum(len(row.tokens) for row in rows) <= self.batch_size
        assert len({row.slot for row in rows}) == len(rows)
        self.steps.append([(row.slot, len(row.tokens), row.samples) for row in rows])
        if self.failing & {row.slot for row in rows}:
            raise EngineError("out of order")
        for row in rows:
            assert self.begun[row.slot]
            assert row.position == len(self.cache[row.slot])
            self.cache[row.slot] += row.tokens
            assert len(self.cache[row.slot]) <= self.facts.num_ctx

    def _next(self, slot):
        return END if self.length(slot) else next_token(self.cache[slot])

    def logprobs(self, _slot, token, _top):
        return -0.5, [(token, -0.5)]

    def trim(self, slot, length):
        if not self.facts.can_trim and length:
            self.cache[slot] = []
            return False
        del self.cache[slot][length:]
        return True

    def copy(self, source, target, length):
        self.copies.append((source, target, length))
        self.cache[target] = self.cache[source][:length] if self.can_copy else []
        return self.can_copy

    def shift(self, slot, keep, discard):
        assert 0 <= keep < keep + discard <= len(self.cache[slot])
        del self.cache[slot][keep : keep + discard]

    def state_bytes(self, slot):
        return 4 * len(self.cache[slot])

    def save(self, slot, state):
        state[:] = np.array(self.cache[slot], np.int32).view(np.uint8)
        return True

    def restore(self, slot, state, length):
        self.cache[slot] = state.view(np.int32).tolist()
        assert len(self.cache[slot]) == length
        return True

    def is_acceptable(self, state, length):
        return len(state) == 4 * length

    def close(self):
        pass


def next_token(cache):
    state = 7
    for token in cache:
        state = (state * 31 + token + 1) % 1_000_003
    return state % WORDS


def answer_to(prompt, count):
    """The text of ``count`` tokens after ``prompt``, computed afresh."""
    cache, generated = list(prompt), []
    for _ in range(count):
        generated.append(next_token(cache))
        cache.append(generated[-1])
    return "".join(f"<{token}>" for token in generated)


@pytest.fixture(scope="session")
def fake_engine():
    return FakeEngine


@pytest.fixture(scope="session", name="answer_to")
def _answer_to():
    return answer_to
