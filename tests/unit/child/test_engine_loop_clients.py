"""The engine loop: clients and constrained streams take turns."""

import pytest

from tests.unit.child.loop_harness import LoopHarness, prepared


def test_a_short_prompt_does_not_wait_for_the_long_ones_of_another_client(fake_engine):
    harness = LoopHarness(fake_engine(slots=8, num_ctx=2000))
    harness.put(
        *(prepared(number, [number] * 1500, 1, num_ctx=2000, client="a") for number in range(1, 8))
    )
    harness.iterate(2)
    harness.put(prepared(8, [8] * 20, 1, client="b"))
    harness.iterate(2)

    assert set(harness.ends()) == {8}


def test_clients_take_turns_in_reading_prompts(fake_engine):
    harness = LoopHarness(fake_engine(slots=4, num_ctx=2000))
    for number, client in enumerate("aabc"):
        harness.put(prepared(number, [number] * 400, 1, num_ctx=2000, client=client))
    harness.iterate(9)

    first = [rows[0][0] for rows in harness.engine.steps]
    assert first == [0, 2, 3] * 3


class ExpensiveMask:
    """A constraint that allows everything, and takes its time."""

    is_over, failure = False, ""

    def __init__(self, mask_s):
        self.mask_s = mask_s


@pytest.fixture
def constrained(fake_engine):
    class Constrained(fake_engine):
        def begin(self, slot, sampling, prompt, constraint=None, **_options):
            assert constraint is None or constraint.mask_s
            super().begin(slot, sampling, prompt)

    return LoopHarness(Constrained(slots=8, num_ctx=200))


def test_streams_with_expensive_masks_take_turns_and_delay_no_other(constrained):
    expensive = [
        prepared(number, [number], 40, constraint=ExpensiveMask(0.011)) for number in range(6)
    ]
    constrained.put(
        *expensive, prepared(6, [6], 40, constraint=ExpensiveMask(0.0005)), prepared(7, [7], 40)
    )
    constrained.iterate(2)
    constrained.engine.steps.clear()
    constrained.iterate(9)

    slots = [[slot for slot, *_ in rows] for rows in constrained.engine.steps]
    assert all({6, 7} < set(step) and len(step) == 4 for step in slots)
    assert [sum(slot in step for step in slots) for slot in range(6)] == [3] * 6
    constrained.finish(*range(8))


def test_a_stream_whose_mask_takes_more_than_a_step_may_goes_on(constrained):
    constrained.put(
        *(prepared(number, [number], 5, constraint=ExpensiveMask(1.0)) for number in range(3))
    )

    constrained.finish(0, 1, 2)


def test_many_prompts_of_one_client_count_as_one_beside_anothers_stream(fake_engine):
    def longest_chunk(client):
        harness = LoopHarness(fake_engine(slots=8, num_ctx=3000, batch_size=512))
        for _ in range(50):
            harness.planner.costs.observe(1, 0, 0.01)
            harness.planner.costs.observe(1, 256, 0.5)
        harness.put(prepared(0, [0], 50, client="b"))
        harness.iterate(2)
        harness.engine.steps.clear()
        for number in range(1, 8):
            harness.put(prepared(number, [number] * 2000, 1, num_ctx=3000, client=client))
        harness.iterate()
        return sum(tokens for _, tokens, _ in harness.engine.steps[0])

    assert longest_chunk("a") < longest_chunk("b")
