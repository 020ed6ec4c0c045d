"""Models go where there is room."""

from ollama_async.hw.gpus import Gpu
from ollama_async.hw.host import Host
from ollama_async.hw.machine import Machine
from ollama_async.hw.placement import CPU, capacity, rank


def gpu(index: int, free_bytes: int) -> Gpu:
    return Gpu(
        index=index, uuid=f"GPU-{index}", name="H200", memory_bytes=1000, free_bytes=free_bytes
    )


SMALL, LARGE = gpu(0, 500), gpu(1, 1000)
HOST = Host(cores=2, memory_bytes=2000, available_bytes=1000)


def test_the_gpu_with_most_room_comes_first_and_the_cpu_last():
    assert rank([SMALL, LARGE], num_gpu=None, main_gpu=None) == ["GPU-1", "GPU-0", CPU]


def test_num_gpu_0_means_the_cpu():
    assert rank([SMALL, LARGE], num_gpu=0, main_gpu=1) == [CPU]


def test_a_pinned_gpu_is_used_or_nothing():
    assert rank([SMALL, LARGE], num_gpu=None, main_gpu=0) == ["GPU-0"]
    assert rank([SMALL, LARGE], num_gpu=None, main_gpu=7) == []


def test_a_pin_means_nothing_where_there_is_no_gpu():
    assert rank([], num_gpu=1, main_gpu=0) == [CPU], "as in the example of Ollama's API document"


def test_no_device_is_filled_to_the_brim():
    machine = Machine(HOST, (SMALL, LARGE))

    assert capacity(machine) == {"GPU-0": 400, "GPU-1": 800, CPU: 950}
    assert capacity(machine, gpu_overhead_bytes=600) == {"GPU-0": 0, "GPU-1": 320, CPU: 950}
