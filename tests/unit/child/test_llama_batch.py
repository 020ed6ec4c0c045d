"""Which idle slots a step carries along."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_padding import (
    ACCELERATOR_COST,
    CPU_COST,
    PassCost,
    find_padding_slots,
)


def decoding(*slots):
    return [Row(slot, (1,), 0, samples=True) for slot in slots]


def bridge(rows, cost=CPU_COST, full=()):
    return find_padding_slots(rows, cost, lambda slot: slot not in full)


def test_neighbours_need_no_bridge():
    assert bridge(decoding(3)) == []
    assert bridge(decoding(3, 4, 5)) == []


def test_a_small_gap_between_runs_is_bridged():
    assert bridge(decoding(0, 1, 2, 4, 5, 6)) == [3]


def test_a_wide_gap_is_not():
    assert bridge(decoding(0, 1, 30, 31)) == []


def test_on_an_accelerator_wide_gaps_are_bridged_too():
    assert bridge(decoding(0, 31), ACCELERATOR_COST) == list(range(1, 31))


def test_a_full_slot_cannot_be_bridged():
    assert bridge(decoding(0, 1, 4, 5), full={3}) == []


def test_lone_rows_stay_alone_where_that_is_cheap():
    assert bridge(decoding(0, 2, 4, 6), PassCost(lone=2.5, fixed=7)) == []


def test_a_prompt_is_not_worth_a_bridge():
    chunk = Row(3, (1, 2, 3), 0, samples=False)
    assert bridge([*decoding(0, 1), chunk]) == []
    assert bridge([chunk, *decoding(5, 6)]) == []


def test_a_prompt_between_decoding_slots_belongs_to_their_run():
    chunk = Row(2, (1, 2, 3), 0, samples=False)
    assert bridge([*decoding(0, 1), chunk, *decoding(3, 5, 6)]) == [4]


@given(st.sets(st.integers(0, 40), min_size=1), st.sets(st.integers(0, 40)))
def test_bridges_are_free_idle_slots_between_busy_ones_and_pay(busy, full):
    rows = decoding(*sorted(busy))
    chosen = bridge(rows, full=full)
    assert len(set(chosen)) == len(chosen)
    assert not set(chosen) & (busy | full)
    assert all(min(busy) < slot < max(busy) for slot in chosen)

    def passes(slots):
        ordered = sorted(slots)
        sizes = [1]
        for left, right in pairwise(ordered):
            if right == left + 1:
                sizes[-1] += 1
            else:
                sizes.append(1)
        return sum(map(CPU_COST, sizes))

    assert passes(busy | set(chosen)) <= passes(busy)
