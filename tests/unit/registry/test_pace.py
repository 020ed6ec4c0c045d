"""When a connection that says something now and then counts as a silent one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.registry.errors import Transient
from ollama_async.registry.transfer_policy import LEAST_BYTES, Pace

WINDOW_S = 30.0


def test_a_trickle_is_noticed():
    pace = Pace(WINDOW_S)
    for _ in range(30):
        pace.came(1, 1.0)
    with pytest.raises(Transient, match=r"^too slow: 31 bytes in 31 seconds$"):
        pace.came(1, 1.0)


@given(st.lists(st.integers(LEAST_BYTES, 1 << 20), min_size=1))
def test_who_brings_enough_in_time_may_go_on_for_ever(counts):
    pace = Pace(WINDOW_S)
    for count in counts:
        pace.came(count // 2, WINDOW_S / 2)
        pace.came(count - count // 2, WINDOW_S / 2)


@given(st.lists(st.tuples(st.integers(1, LEAST_BYTES), st.floats(0, WINDOW_S)), min_size=1))
def test_whoever_goes_on_brought_enough(pieces):
    pace, total_bytes, waited_s = Pace(WINDOW_S), 0, 0.0
    try:
        for count, seconds in pieces:
            pace.came(count, seconds)
            total_bytes += count
            waited_s += seconds
    except Transient:
        return
    assert waited_s <= (total_bytes // LEAST_BYTES + 1) * 2 * WINDOW_S


def test_without_a_limit_nothing_is_too_slow():
    pace = Pace(math.inf)
    for _ in range(10):
        pace.came(1, 1e9)
