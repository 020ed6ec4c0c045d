"""Answers with drafts are those without, token by token, whatever ends them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.workers.child import kv_pool
from ollama_async.workers.child.batching import MIN_CHUNK
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.messages import Cancel, Done, Failed
from tests.unit.child.conftest import END, FakeEngine, next_token
from tests.unit.child.loop_harness import EagerLookup, LoopHarness, prepared
from tests.unit.child.pooled_engine import PooledEngine


class CopyingEngine(FakeEngine):
    """Mostly repeats what followed the last two tokens before; a function of the cache, too."""

    def _next(self, slot):
        cache = self.cache[slot]
        chance = next_token(cache)
        if self.length(slot):
            return END
        if chance % 16:
            for at in range(len(cache) - 2, 1, -1):
                if cache[at - 2 : at] == cache[-2:]:
                    return cache[at]
        return chance % 8


class Timed(LoopHarness):
    """A row takes a tenth of what a step takes, if only one step is measured at a time."""

    def __init__(self, engine, **options):
        super().__init__(engine, **options)
        evaluate = engine._evaluate

        def timed(rows):
            evaluate(rows)
            self.now_ns += 1_000_000 + 100_000 * sum(row.drafts for row in rows)

        engine._evaluate = timed

    def tick(self):
        return self.now_ns


def start(requests, *, can_draft, slots=3, length=0):
    engine = CopyingEngine(slots, 240, batch_size=slots + MIN_CHUNK, can_draft=can_draft)
    if length:
        engine.length = lambda slot: len(engine.cache[slot]) >= length
    harness = Timed(engine)
    harness.put(*requests)
    return harness


def finish(harness, *ids):
    harness.finish(*ids)
    for slot, cached in zip(harness.engine_loop.pool.all, harness.engine.cache, strict=True):
        assert slot.tokens == cached
    return harness


def play(requests, **options):
    return finish(start(requests, **options), *(request.id for request in requests))


def told(harness):
    """What the clients learn, without times."""
    ends = {
        number: (end.reason, end.usage.answer, end.context, end.stop_string)
        for number, end in harness.ends().items()
        if isinstance(end, Done)
    }
    return dict(harness.texts()), ends


PASSAGE = [1, 5, 2, 7, 3, 3, 6, 0, 4]
requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 7), min_size=1, max_size=30),
        st.integers(0, 90),  # tokens of the answer
        st.integers(60, 80),  # num_ctx
        st.booleans(),  # shift
        st.sampled_from([[], ["<3><3>"], ["><4"], ["<6>", "<1><5>"]]),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(requests, st.sampled_from([0, 30, 55]))
def test_clients_get_what_they_would_get_without_drafts(drawn, length):
    def ask():
        return [
            prepared(
                number,
                prompt,
                count,
                num_ctx=num_ctx,
                shift=shift,
                stop=stop,
                returns_context=True,
            )
            for number, (prompt, count, num_ctx, shift, stop) in enumerate(drawn, 1)
        ]

    plain = play(ask(), can_draft=False, length=length)
    assert told(play(ask(), can_draft=True, length=length)) == told(plain)


def drafted_steps(harness):
    """The steps in which a slot that had its prompt got several tokens."""
    return [
        step
        for step, before in zip(harness.engine.steps[1:], harness.engine.steps, strict=False)
        if all(samples for _, _, samples in before)
        and any(tokens > 1 for _, tokens, _ in step)
        and {slot for slot, *_ in step} <= {slot for slot, *_ in before}
    ]


def test_an_answer_that_repeats_its_prompt_takes_fewer_steps():
    ask = [prepared(1, PASSAGE * 2, 200, num_ctx=240)]
    plain, drafted = play(ask, can_draft=False), play(ask, can_draft=True)
    assert told(plain) == told(drafted)
    assert len(drafted.engine.steps) < 0.6 * len(plain.engine.steps)
    usage = drafted.ends()[1].usage
    assert usage.answer_ns < plain.ends()[1].usage.answer_ns
    assert len(plain.engine.steps) - len(drafted.engine.steps) == usage.accepted <= usage.drafted


@pytest.mark.parametrize(("streams", "is_drafted"), [(3, True), (4, False)])
def test_many_streams_are_not_drafted(streams, is_drafted):
    ask = [prepared(number, [*PASSAGE, number], 40) for number in range(1, streams + 1)]
    harness = play(ask, can_draft=True, slots=4)
    assert bool(drafted_steps(harness)) == is_drafted


def test_what_wants_logprobs_is_not_drafted():
    harness = play([prepared(1, PASSAGE * 2, 40, logprobs=1)], can_draft=True)
    assert not drafted_steps(harness)


@pytest.mark.parametrize("is_invariant", [False, True])
def test_a_seed_is_drafted_only_where_that_changes_no_sum(is_invariant):
    harness = start([prepared(1, PASSAGE * 2, 40, seed=1)], can_draft=True)
    harness.engine_loop._step._lookup = PromptLookup(is_invariant=is_invariant)
    finish(harness, 1)
    assert bool(drafted_steps(harness)) == is_invariant


def test_a_prompt_ends_drafting_until_it_has_been_read():
    harness = start([prepared(1, PASSAGE * 3, 40, num_ctx=80)], can_draft=True)
    while not drafted_steps(harness):
        harness.iterate()
    harness.put(prepared(2, range(40), 1, num_ctx=80))
    harness.iterate()
    assert (0, 1, True) in harness.engine.steps[-1]


def test_a_failed_step_with_drafts_fails_its_requests_only():
    harness = start([prepared(1, PASSAGE * 3, 40, num_ctx=80)], can_draft=True)
    while not drafted_steps(harness):
        harness.iterate()
    harness.engine.failing = {0}
    harness.iterate()
    harness.engine.failing = set()
    harness.put(prepared(2, PASSAGE, 4))
    ends = harness.finish(1, 2).ends()
    assert isinstance(ends[1], Failed)
    assert isinstance(ends[2], Done)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), max_size=4))
def test_a_cancelled_answer_is_the_beginning_of_the_whole(cancels):
    ask = [prepared(number, PASSAGE * number, 40, num_ctx=80) for number in range(1, 4)]
    whole = play(ask, can_draft=False).texts()
    harness = start(ask, can_draft=True)
    for number, steps in cancels:
        harness.iterate(steps)
        harness.put(Cancel(number))
    finish(harness, 1, 2, 3)
    assert all(whole[number].startswith(text) for number, text in harness.texts().items())


class CopyingPool(PooledEngine):
    _next = CopyingEngine._next


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 90)), min_size=1, max_size=5),
    st.sampled_from([80, 100, 160]),
)
def test_where_cells_are_scarce_drafts_take_none_from_others(drawn, cells):
    asked = [
        prepared(number, (PASSAGE * 7)[:length], count, num_ctx=80)
        for number, (length, count) in enumerate(drawn, 1)
    ]
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_pool, "RESERVED_ANSWER", 2)
        patch.setattr(kv_pool, "RESERVED_AHEAD", 1)
        for can_draft in (False, True):
            harness = LoopHarness(CopyingPool(3, 80, cells, batch_size=64, can_draft=can_draft))
            harness.engine_loop._step._lookup = (
                EagerLookup(is_invariant=True) if can_draft else None
            )
            harness.put(*asked)
            finish(harness, *range(1, len(asked) + 1))
            assert all(isinstance(end, Done) for end in harness.ends().values())
            assert harness.engine_loop.pool.used_cells == harness.engine.used
            texts.append(harness.texts())
    assert texts[0] == texts[1]
