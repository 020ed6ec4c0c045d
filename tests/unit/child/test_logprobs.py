"""Logprobs: the mathematics on a row of logits, and their way through the step thread."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Logprobs, Sampling, Thought, TokenLogprob
from ollama_async.core.scripted_models import Script
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines.logits import (
    LEAST_LOGPROB,
    can_find_largest,
    find_largest,
    log_probabilities,
)
from ollama_async.workers.child.engines.scripted import Scripted
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.child.output_parser import OutputParser
from ollama_async.workers.messages import Deltas, Done, Failed, ToolCallDelta
from tests.unit.child.loop_harness import hand_over
from tests.unit.child.test_output_parser import Brackets

# The mathematics


def plain_logprobs(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


@pytest.mark.parametrize("size", [5, 300, 20_011])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("top", [0, 1, 20])
def test_logprobs_are_the_log_softmax_of_the_logits(size, spread, top):
    logits = (np.random.default_rng(size).normal(size=size) * spread + 5).astype(np.float32)
    expected = plain_logprobs(logits)

    logprob, best = log_probabilities(logits, 3, top)

    assert logprob == pytest.approx(expected[3], abs=1e-4)
    order = np.lexsort((np.arange(size), -logits))[:top].tolist()
    assert [token for token, _ in best] == order
    assert [value for _, value in best] == pytest.approx(expected[order].tolist(), abs=1e-4)


def test_logprobs_leave_the_row_as_it_is():
    logits = np.arange(20_000, dtype=np.float32)
    log_probabilities(logits, 3, 20)
    assert logits.tolist() == list(range(20_000))


def test_what_is_impossible_is_left_out_and_the_token_itself_stays_finite():
    logits = np.full(10, -np.inf, np.float32)
    logits[[2, 4]] = 1.0, 1.0

    assert log_probabilities(logits, 7, 20) == (
        LEAST_LOGPROB,
        [(2, pytest.approx(math.log(0.5))), (4, pytest.approx(math.log(0.5)))],
    )


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_broken_logits_give_finite_numbers(fill):
    for size in (10, 20_000):
        row = np.zeros(size, np.float32)
        row[:] = fill
        assert log_probabilities(row, 7, 20) == (LEAST_LOGPROB, [])


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 5000), st.integers(1, 10_000))
def test_the_largest_are_among_those_found(seed, count, more, spread):
    random = np.random.default_rng(seed)
    values = random.integers(spread, size=count * 256 + more)  # many may be equal
    logits = values.astype(np.float32)
    assert can_find_largest(count, len(logits))
    found = find_largest(logits, count)
    least = np.sort(logits)[-count]
    assert set(np.flatnonzero(logits > least)) <= set(found)
    assert len(found) >= count


# Through the step thread

HALF = math.log(0.5)


class LogprobHarness:
    """The loop over a scripted engine that counts what it is asked."""

    def __init__(self, *tokens, special=()):
        self.engine = Scripted(Script(tokens=list(tokens)), slots=2, num_ctx=64)
        self.special = dict(special)
        self.mailbox = Mailbox()
        self.sent = []
        self.loop = EngineLoop(self.engine, self.mailbox, self.sent.extend, BatchPlanner(64))
        self.asked = []
        logprobs = self.engine.logprobs
        self.engine.logprobs = lambda *args: (self.asked.append(args), logprobs(*args))[1]

    def run(self, number=1, *, logprobs=0, parser=None, stop=(), limit=50, constraint=None):
        request = PreparedRequest(
            id=number,
            tokens=[1, 2],
            sampling=Sampling(stop=list(stop)),
            num_ctx=64,
            keep=0,
            max_tokens=limit,
            shift=False,
            returns_context=False,
            parser=parser,
            special=self.special,
            constraint=constraint,
            logprobs=logprobs,
        )
        hand_over(self.mailbox, request)
        for _ in range(60):
            self.loop.iterate(idle_s=0)
        return self

    def deltas(self, number=1):
        """A token is in brackets."""
        return [
            [each.token for each in delta.tokens] if isinstance(delta, Logprobs) else delta
            for message in self.sent
            if isinstance(message, Deltas)
            for request_id, delta in message.items
            if request_id == number
        ]

    def logprobs(self):
        """All that were sent."""
        deltas = [item for each in self.sent if isinstance(each, Deltas) for _, item in each.items]
        return [token for each in deltas if isinstance(each, Logprobs) for token in each.tokens]

    @property
    def end(self):
        return [message for message in self.sent if isinstance(message, Done | Failed)][-1]


def test_each_token_comes_with_its_logprob_before_its_text_and_the_end_has_none():
    harness = LogprobHarness("Hel", "lo").run()
    assert harness.deltas() == [[b"Hel"], "Hel", [b"lo"], "lo"]
    assert harness.end.usage.answer == 3


def test_the_most_likely_tokens_come_best_first():
    harness = LogprobHarness("a", "b", "c").run(logprobs=3, limit=1)
    best = [(b"a", HALF), (b"b", 2 * HALF), (b"c", 3 * HALF)]
    assert harness.logprobs() == [TokenLogprob(b"a", HALF, best)]


def test_only_those_who_ask_pay():
    harness = LogprobHarness("a", "b").run(1, logprobs=-1)
    assert harness.deltas() == ["a", "b"]
    assert not harness.asked
    harness.run(2, logprobs=5).run(3, logprobs=-1)
    assert harness.deltas(2) == [[b"a"], "a", [b"b"], "b"]
    assert harness.deltas(3) == ["a", "b"]
    assert [top for _, _, top in harness.asked] == [5, 5]
    assert harness.loop.running.logprobs == 0


def test_tokens_whose_text_is_held_back_have_their_logprobs_at_once():
    harness = LogprobHarness("a ST", "OP", "x").run(stop=["STOP"])
    assert harness.deltas() == [[b"a ST"], "a ", [b"OP"]]
    assert harness.end.stop_string == "STOP"


def test_a_token_may_be_a_part_of_a_character():
    harness = LogprobHarness("a")
    harness.engine._answer = [0xC3, 0xA9]
    harness.run()
    assert harness.deltas() == [[b"\xc3"], [b"\xa9"], "é"]


def test_tokens_that_a_parser_reads_have_logprobs_too():
    deltas = LogprobHarness("(h", "m)", "[f", "]x").run(parser=OutputParser(Brackets())).deltas()
    assert deltas[:5] == [[b"(h"], [b"m)"], Thought("hm"), [b"[f"], [b"]x"]]
    assert isinstance(deltas[5], ToolCallDelta)
    assert deltas[6:] == ["x"]


def test_control_tokens_have_the_text_that_the_parser_reads_or_their_name():
    harness = LogprobHarness("a", "b", special={257: b"<read>"})
    harness.engine.piece = lambda token: b"a" if token == 256 else b""
    harness.engine.piece_with_control = lambda token: f"<{token}>".encode()
    harness.run(logprobs=3, limit=2)
    assert harness.deltas() == [[b"a"], "a", [b"<read>"], "<read>"]
    one, other = ([token for token, _ in each.top] for each in harness.logprobs())
    assert one == [b"a", b"<read>", b"<258>"]
    assert other == [b"<read>", b"<258>", b"<0>"]


def test_a_token_that_fails_its_constraint_has_none():
    class Failing:
        is_over, failure, mask_s = False, "", 0.0

        def allows(self, _token):
            return True

        def accept(self, _token):
            self.is_over, self.failure = True, "nothing is allowed"

    harness = LogprobHarness("a").run(constraint=Failing())
    assert harness.logprobs() == []
    assert isinstance(harness.end, Failed)
    assert harness.loop.running.logprobs == 0
