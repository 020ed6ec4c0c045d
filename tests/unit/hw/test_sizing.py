"""Slots and bytes follow from the numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.hw import sizing

GIB = 1 << 30


def load(**changes):
    numbers = {
        "weights_bytes": 600 << 20,
        "cache_bytes_per_token": 12_288,
        "cache_type": "f16",
        "num_ctx": 4096,
        "on_cpu": True,
    }
    return sizing.Load(**{**numbers, **changes})


def plan(available_bytes=16 * GIB, num_parallel=0, **changes):
    wanted = load(**changes)
    slots = sizing.choose_slots(wanted, available_bytes=available_bytes, num_parallel=num_parallel)
    return sizing.footprint(wanted, slots=slots)


def test_on_a_cpu_the_cache_stays_within_what_a_load_can_zero():
    footprint = plan()

    assert footprint.slots == 21
    assert footprint.cache_bytes <= sizing.CPU_CACHE_LIMIT_BYTES


def test_on_a_gpu_half_of_what_is_left_counts():
    assert plan(on_cpu=False).slots == sizing.MAX_SLOTS
    assert plan(on_cpu=False, available_bytes=GIB).slots == 2


def test_a_number_of_slots_that_was_asked_for_is_kept():
    assert plan(num_parallel=3, available_bytes=0).slots == 3


def test_there_is_always_one_slot():
    assert plan(available_bytes=0).slots == 1


def test_a_smaller_cache_type_makes_room_for_more_slots():
    assert plan(cache_type="q8_0", num_ctx=8192).slots > plan(num_ctx=8192).slots


@given(
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 22),
    st.integers(4, 1 << 20),
    st.integers(0, 1 << 40),
    st.booleans(),
)
def test_slots_stay_within_bounds(weights, per_token, num_ctx, available, on_cpu):
    footprint = plan(
        weights_bytes=weights,
        cache_bytes_per_token=per_token,
        num_ctx=num_ctx,
        available_bytes=available,
        on_cpu=on_cpu,
    )

    assert 1 <= footprint.slots <= sizing.MAX_SLOTS
    assert footprint.slots == 1 or footprint.cache_bytes * 2 <= available


@pytest.mark.parametrize(
    ("wished", "default", "train", "expected"),
    [
        (0, 4096, 2048, 2048),
        (8192, 4096, 0, 8192),
        (8192, 4096, 2048, 2048),
        (0, 1, 0, 4),
        (512, 4096, 0, 4096),
        (512, 1024, 0, 1024),
        (512, 4096, 2048, 2048),
        (8192, 262_144, 0, 8192),
        (512, 262_144, 0, 4096),
    ],
)
def test_the_context_is_the_wish_unless_that_would_shrink_it_for_everybody(
    wished, default, train, expected
):
    assert sizing.context(wished, default, train) == expected


@pytest.mark.parametrize(("gib", "expected"), [(0, 4096), (22, 4096), (24, 32_768), (80, 262_144)])
def test_the_default_context_grows_with_gpu_memory(gib, expected):
    assert sizing.default_contexts(gib * GIB)[0] == expected
