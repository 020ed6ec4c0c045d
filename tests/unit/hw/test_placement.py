"""Models go to the device with most memory; slots and bytes follow from the numbers alone."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.model_shape import ModelShape
from ollama_async.hw import placement
from ollama_async.hw.machine import Gpu, Machine
from ollama_async.hw.placement import CPU, compute_capacity, rank_devices

GIB = 1 << 30


def gpu(index: int, free_bytes: int) -> Gpu:
    return Gpu(index=index, uuid=f"GPU-{index}", memory_bytes=1000, free_bytes=free_bytes)


SMALL, LARGE = gpu(0, 500), gpu(1, 1000)


def test_the_gpu_with_most_free_memory_comes_first_and_the_cpu_last():
    assert rank_devices([SMALL, LARGE], num_gpu=None, main_gpu=None) == ["GPU-1", "GPU-0", CPU]


def test_num_gpu_0_means_the_cpu():
    assert rank_devices([SMALL, LARGE], num_gpu=0, main_gpu=1) == [CPU]


def test_a_pinned_gpu_is_the_only_device():
    assert rank_devices([SMALL, LARGE], num_gpu=None, main_gpu=0) == ["GPU-0"]
    assert rank_devices([SMALL, LARGE], num_gpu=None, main_gpu=7) == []


def test_main_gpu_is_ignored_without_gpus():
    assert rank_devices([], num_gpu=1, main_gpu=0) == [CPU], (
        "as in the example of Ollama's API document"
    )


def test_the_capacity_is_less_than_the_free_memory():
    machine = Machine(cores=2, available_bytes=1000, gpus=(SMALL, LARGE))

    assert compute_capacity(machine) == {"GPU-0": 400, "GPU-1": 800, CPU: 950}
    assert compute_capacity(machine, gpu_overhead_bytes=600) == {"GPU-0": 0, "GPU-1": 320, CPU: 950}


def load(**changes):
    numbers = {
        "weights_bytes": 600 << 20,
        "cache_bytes_per_token": 12_288,
        "cache_type": "f16",
        "num_ctx": 4096,
        "on_cpu": True,
    }
    return placement.LoadParameters(**{**numbers, **changes})


def plan(available_bytes=16 * GIB, num_parallel=0, **changes):
    """Slots, and bytes of their cache."""
    parameters = load(**changes)
    slots = placement.choose_slots(
        parameters, available_bytes=available_bytes, num_parallel=num_parallel
    )
    return slots, placement.estimate_memory(parameters, slots=slots).cache_bytes


def test_on_a_cpu_the_cache_stays_within_what_a_load_can_zero():
    slots, cache_bytes = plan()

    assert slots == 21
    assert cache_bytes <= placement.CPU_CACHE_LIMIT_BYTES


def test_on_a_gpu_the_cache_takes_half_of_the_free_memory():
    assert plan(on_cpu=False)[0] == placement.MAX_SLOTS
    assert plan(on_cpu=False, available_bytes=GIB)[0] == 2


def test_a_configured_number_of_slots_is_used():
    assert plan(num_parallel=3, available_bytes=0)[0] == 3


def test_there_is_always_one_slot():
    assert plan(available_bytes=0)[0] == 1


def test_a_smaller_cache_type_allows_more_slots():
    assert plan(cache_type="q8_0", num_ctx=8192)[0] > plan(num_ctx=8192)[0]


@given(
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 22),
    st.integers(4, 1 << 20),
    st.integers(0, 1 << 40),
    st.booleans(),
)
def test_slots_stay_within_bounds(weights, per_token, num_ctx, available, on_cpu):
    slots, cache_bytes = plan(
        weights_bytes=weights,
        cache_bytes_per_token=per_token,
        num_ctx=num_ctx,
        available_bytes=available,
        on_cpu=on_cpu,
    )

    assert 1 <= slots <= placement.MAX_SLOTS
    assert slots == 1 or cache_bytes * 2 <= available


@pytest.mark.parametrize(
    ("requested", "default", "train", "expected"),
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
def test_the_context_is_as_requested_but_not_below_the_shared_one(
    requested, default, train, expected
):
    assert placement.choose_context(requested, default, train) == expected


@pytest.mark.parametrize(("gib", "expected"), [(0, 4096), (22, 4096), (24, 32_768), (80, 262_144)])
def test_the_default_context_grows_with_gpu_memory(gib, expected):
    assert placement.default_contexts(gib * GIB)[0] == expected


PLAIN = ModelShape(masks=1, row_bytes=4096, vocab_size=32_000, heads=8, head_length=64)


def pool(slots, num_parallel=0, **changes):
    parameters = load(**{"shape": PLAIN, **changes})
    return placement.choose_pool(parameters, slots=slots, num_parallel=num_parallel)


@given(
    st.integers(0, 1 << 40),
    st.integers(1, 1 << 22),
    st.integers(4, 1 << 20),
    st.integers(1, 32),
    st.integers(0, 300),
)
def test_a_pool_holds_a_whole_context_and_takes_no_more_than_separate_caches(
    weights, per_token, num_ctx, slots, num_parallel
):
    changes = {"weights_bytes": weights, "cache_bytes_per_token": per_token, "num_ctx": num_ctx}
    found = pool(slots, num_parallel, **changes)

    assert found.cells >= num_ctx
    assert found.cells % 256 == 0
    assert found.cells <= slots * (num_ctx + 255)
    assert found.cells <= max(placement.MAX_CELLS, num_ctx + 255)
    assert found.slots == (num_parallel or max(1, min(placement.MAX_SLOTS, found.cells // 512)))
    with_pool = placement.estimate_memory(load(shape=PLAIN, **changes), slots=slots, pool=found)
    assert with_pool.cache_bytes == plan_bytes(slots, **changes).cache_bytes


def plan_bytes(slots, **changes):
    return placement.estimate_memory(load(shape=PLAIN, **changes), slots=slots)


def test_a_tiny_model_has_fewer_cells_to_mask():
    assert pool(32, weights_bytes=8 << 20, num_ctx=4096).cells == 1 << 14
    assert pool(32, weights_bytes=100 << 20, num_ctx=4096).cells == 51_200
    assert pool(32, weights_bytes=1 << 30, num_ctx=4096).cells == placement.MAX_CELLS


def test_models_that_cannot_have_a_pool():
    windowed = msgspec.structs.replace(PLAIN, masks=2)
    recurrent = msgspec.structs.replace(PLAIN, state_bytes=1000)
    scored = msgspec.structs.replace(PLAIN, scored_heads=8)

    assert pool(4, on_cpu=False) is None
    assert pool(4, embedding="split") is None
    assert [pool(4, shape=shape) for shape in (windowed, recurrent, scored)] == [None] * 3


def test_the_mask_of_a_pool_is_planned():
    found = pool(32, weights_bytes=8 << 20)
    tiny = load(shape=PLAIN, weights_bytes=8 << 20)
    with_pool = placement.estimate_memory(tiny, slots=32, pool=found)
    without = placement.estimate_memory(tiny, slots=32)

    mask = load().batch_size * 2
    assert with_pool.compute_bytes - without.compute_bytes == mask * (found.cells - 4096)
