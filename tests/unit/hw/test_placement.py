"""Models go where there is room."""

from ollama_async.hw.placement import CPU, Device, choose

HOST = Device(CPU, 100)
SMALL = Device("GPU-small", 50, 0)
LARGE = Device("GPU-large", 200, 1)


def test_the_gpu_with_most_room_is_taken():
    assert choose([HOST, SMALL, LARGE], 30) == LARGE


def test_promised_bytes_are_not_given_twice():
    assert choose([HOST, SMALL, LARGE], 30, reserved={"GPU-large": 190}) == SMALL


def test_a_gpu_is_not_filled_to_the_brim():
    assert choose([HOST, SMALL], 45) == HOST


def test_the_cpu_takes_what_no_gpu_holds_and_nothing_takes_the_rest():
    assert choose([HOST, SMALL], 90) == HOST
    assert choose([HOST, SMALL], 101) is None


def test_num_gpu_0_means_the_cpu():
    assert choose([HOST, LARGE], 10, wants_cpu=True) == HOST


def test_a_pinned_gpu_is_used_or_nothing():
    assert choose([HOST, SMALL, LARGE], 10, main_gpu=0) == SMALL
    assert choose([HOST, SMALL, LARGE], 60, main_gpu=0) is None
