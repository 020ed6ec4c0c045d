"""The planner: limits that always hold, and what it makes of measured costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.batching import (
    EFFICIENT_CHUNK,
    FIXED_CHUNK,
    MAX_CHUNK,
    MIN_CHUNK,
    POOL,
    PREFILL_STEP_S,
    SEPARATE_CACHES,
    TARGET_STEP_S,
    BatchPlanner,
)

observations = st.lists(
    st.tuples(st.integers(0, 32), st.integers(0, 512), st.floats(0, 100)), max_size=30
)


@given(
    observations,
    st.integers(0, 32),
    st.lists(st.integers(1, 10_000), max_size=40),
    st.integers(48, 2048),
    st.booleans(),
)
def test_every_plan_fits_the_batch_and_starves_no_prompt(seen, streams, waiting, batch, fixed):
    batching = BatchPlanner(batch)
    for decoding, tokens, took_s in seen:
        if decoding or tokens:
            batching.costs.observe(decoding, tokens, took_s)

    chunks = batching.plan_chunks(streams, waiting, fixed=fixed)

    assert len(chunks) == len(waiting)
    assert all(0 <= chunk <= missing for chunk, missing in zip(chunks, waiting, strict=True))
    assert streams + sum(chunks) <= batch
    assert sum(chunks) >= min(MIN_CHUNK, sum(waiting))
    unfinished = [i for i, chunk in enumerate(chunks) if chunk < waiting[i]]
    assert not any(chunks[i] for i in range(len(chunks)) if unfinished and i > unfinished[0])


class Machine:
    """Steps that cost what they cost: a pass, streams, and prompt tokens by chunk size."""

    def __init__(self, *, pass_s, stream_s, token_s, small_factor=2.0):
        self.pass_s = pass_s
        self.stream_s = stream_s
        self.token_s = token_s
        self.small_factor = small_factor

    def step_s(self, streams, tokens):
        factor = self.small_factor if tokens < EFFICIENT_CHUNK else 1.0
        return self.pass_s + streams * self.stream_s + tokens * self.token_s * factor


def settle(machine, streams, prompts, batch=512, rounds=300):
    """The last chunks that are planned once the costs are known."""
    batching = BatchPlanner(batch)
    for _ in range(10):
        batching.costs.observe(streams, 0, machine.step_s(streams, 0)) if streams else None
    taken = []
    for _ in range(rounds):
        chunk = sum(batching.plan_chunks(streams, [100_000] * prompts))
        batching.costs.observe(streams, chunk, machine.step_s(streams, chunk))
        taken.append(chunk)
    return taken[-50:]


FAST = Machine(pass_s=0.005, stream_s=0.0005, token_s=0.0002)
MIDDLE = Machine(pass_s=0.02, stream_s=0.002, token_s=0.0015)
SLOW = Machine(pass_s=0.2, stream_s=0.01, token_s=0.02)


@pytest.mark.parametrize(("machine", "streams"), [(FAST, 8), (MIDDLE, 8), (MIDDLE, 16)])
def test_streams_do_not_wait_much_longer_than_the_target(machine, streams):
    taken = settle(machine, streams, prompts=1)

    assert all(machine.step_s(streams, chunk) <= 2.1 * TARGET_STEP_S for chunk in taken)
    assert min(taken) >= EFFICIENT_CHUNK


def test_a_small_chunk_is_taken_only_where_an_efficient_one_takes_too_long():
    taken = settle(SLOW, 4, prompts=1)

    assert sorted(taken)[25] == MIN_CHUNK


def test_more_prompts_wait_longer_steps_are_taken():
    one = sorted(settle(MIDDLE, 8, prompts=1))[25]
    many = sorted(settle(MIDDLE, 8, prompts=8))[25]

    assert one < many <= MAX_CHUNK
    assert MIDDLE.step_s(8, one) <= 2.1 * TARGET_STEP_S
    assert MIDDLE.step_s(8, many) <= 1.2 * SEPARATE_CACHES.long_step_s


def test_a_machine_that_misses_the_target_anyway_does_not_starve_prompts():
    """Streams take 0.6 s a step: sixteen waiting prompts must not get sixteen tokens at a time."""
    busy = Machine(pass_s=0.3, stream_s=0.02, token_s=0.016)

    taken = sorted(settle(busy, 15, prompts=16))[25]

    assert taken >= EFFICIENT_CHUNK
    assert busy.step_s(15, taken) <= 6 * busy.step_s(15, 0)


def test_alone_a_prompt_gets_the_whole_batch_where_that_is_fast_enough():
    assert max(settle(FAST, 0, prompts=1)) == 512
    taken = sorted(settle(MIDDLE, 0, prompts=1))[25]
    assert EFFICIENT_CHUNK <= taken < 512
    assert MIDDLE.step_s(0, taken) <= 1.2 * PREFILL_STEP_S


def test_chunks_grow_when_a_machine_becomes_fast():
    batching = BatchPlanner(512)
    for _ in range(50):
        chunk = sum(batching.plan_chunks(4, [10_000]))
        batching.costs.observe(4, chunk, SLOW.step_s(4, chunk))
    for _ in range(400):
        chunk = sum(batching.plan_chunks(4, [10_000]))
        batching.costs.observe(4, chunk, FAST.step_s(4, chunk))

    assert sum(batching.plan_chunks(4, [10_000])) > EFFICIENT_CHUNK


def test_a_pause_of_the_machine_is_forgotten_though_prompts_never_cease():
    batching = BatchPlanner(512)
    batching.costs.observe(4, 0, 30.0)  # the process was stopped
    for _ in range(100):
        chunk = sum(batching.plan_chunks(4, [10_000]))
        batching.costs.observe(4, chunk, FAST.step_s(4, chunk))

    assert sum(batching.plan_chunks(4, [10_000])) > EFFICIENT_CHUNK


def test_a_fixed_plan_does_not_depend_on_what_was_measured():
    fresh, used = BatchPlanner(512), BatchPlanner(512)
    for _ in range(10):
        used.costs.observe(0, 64, 5.0)

    assert (
        fresh.plan_chunks(0, [300], fixed=True)
        == used.plan_chunks(0, [300], fixed=True)
        == [FIXED_CHUNK]
    )


def test_a_short_tail_of_a_prompt_is_included():
    assert BatchPlanner(512).plan_chunks(0, [80]) == [80]
    assert BatchPlanner(512).plan_chunks(0, [70, 70]) == [70, 0]
    assert BatchPlanner(70).plan_chunks(0, [80]) == [64]


def test_a_short_prompt_among_those_of_others_gets_a_short_step():
    batching = BatchPlanner(512)
    for _ in range(50):
        batching.costs.observe(0, 256, 0.05)

    assert batching.plan_chunks(0, [20, 500], is_shared=True) == [20, 44]
    assert sum(batching.plan_chunks(0, [20, 500])) > 256
    assert sum(batching.plan_chunks(0, [500, 20], is_shared=True)) > 256


def test_the_prompts_of_one_client_slow_anothers_stream_as_one_prompt_would():
    batching = BatchPlanner(512)
    for _ in range(50):
        batching.costs.observe(1, 0, 0.01)
        batching.costs.observe(1, 256, 0.5)

    assert batching.plan_chunks(1, [500] * 31, prompt_count=1) == [
        *batching.plan_chunks(1, [500]),
        *[0] * 30,
    ]
    assert sum(batching.plan_chunks(1, [500] * 31)) > sum(batching.plan_chunks(1, [500]))


FLAT = Machine(pass_s=0.01, stream_s=0.003, token_s=0.0007, small_factor=1.0)
"""As a pool is."""


@pytest.mark.parametrize("streams", [1, 8, 24])
def test_in_a_pool_no_stream_waits_long_for_one_prompt(streams):
    batching = BatchPlanner(512, POOL)
    steps_s = []
    for _ in range(10):
        batching.costs.observe(streams, 0, FLAT.step_s(streams, 0))
    for _ in range(100):
        (chunk,) = batching.plan_chunks(streams, [100_000])
        took_s = FLAT.step_s(streams, chunk)
        batching.costs.observe(streams, chunk, took_s)
        steps_s.append(took_s)
        assert chunk >= MIN_CHUNK

    assert max(steps_s) <= 0.15


def test_in_a_pool_waiting_prompts_get_going():
    batching = BatchPlanner(512, POOL)
    batching.costs.observe(8, 0, FLAT.step_s(8, 0))
    waiting = [400] * 32
    steps_s = []
    while waiting:
        chunks = batching.plan_chunks(8, waiting)
        steps_s.append(FLAT.step_s(8, sum(chunks)))
        batching.costs.observe(8, sum(chunks), steps_s[-1])
        waiting = [
            left - chunk for left, chunk in zip(waiting, chunks, strict=True) if left > chunk
        ]

    assert max(steps_s) <= 1.2 * POOL.long_step_s
    assert sum(steps_s) <= 2 * 32 * 400 * FLAT.token_s
