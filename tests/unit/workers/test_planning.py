"""Plans follow from settings, wishes and what the machine has."""

import pytest

from ollama_async.errors import LoadFailed
from ollama_async.hw.gpus import Gpu
from ollama_async.hw.host import Host
from ollama_async.hw.machine import Machine
from ollama_async.hw.placement import CPU
from ollama_async.queue.port import Needs, Target
from ollama_async.settings import Settings
from ollama_async.workers.planning import planner

GIB = 1 << 30
GPU = Gpu(index=0, uuid="GPU-a", name="H200", memory_bytes=140 * GIB, free_bytes=140 * GIB)
TARGET = Target(
    key="sha256:1",
    name="m:latest",
    digest="0" * 64,
    engine="llama_cpp",
    path="/m.gguf",
    weights_bytes=GIB,
    cache_bytes_per_token=12_288,
    train_ctx=32_768,
    details={},
)


def plans(needs=Needs(), *, cores=2, gpus=(), **variables):  # noqa: B008  # frozen
    machine = Machine(
        Host(cores=cores, memory_bytes=32 * GIB, available_bytes=16 * GIB), tuple(gpus)
    )
    return planner(Settings.from_environ(variables), lambda: machine, {"LANG": "C"})(TARGET, needs)


def test_a_machine_without_gpus_has_one_plan():
    (plan,) = plans()

    assert list(plan.demand) == [CPU]
    assert (plan.num_ctx, plan.slots, plan.spec.gpu_layers) == (4096, 21, 0)
    assert plan.environ == {"LANG": "C", "CUDA_VISIBLE_DEVICES": ""}
    assert (plan.spec.num_ctx, plan.spec.slots, plan.spec.model) == (4096, 21, "/m.gguf")


def test_a_gpu_is_tried_first_and_pinned_by_its_uuid():
    first, last = plans(gpus=[GPU])

    assert list(first.demand) == ["GPU-a"]
    assert first.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert (first.num_ctx, first.spec.gpu_layers) == (32_768, -1)
    assert list(last.demand) == [CPU]


def test_num_gpu_0_keeps_the_model_off_the_gpu():
    (plan,) = plans(Needs(num_gpu=0), gpus=[GPU])

    assert list(plan.demand) == [CPU]


def test_a_gpu_that_does_not_exist_is_an_error():
    with pytest.raises(LoadFailed, match="main_gpu 3"):
        plans(Needs(main_gpu=3), gpus=[GPU])


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 3), (4, 3), (16, 15)])
def test_from_four_cores_on_one_is_left_to_the_gateway(cores, threads):
    assert plans(cores=cores)[0].spec.threads == threads


def test_wishes_and_settings_reach_the_worker():
    (plan,) = plans(
        Needs(num_ctx=8192, num_batch=64, num_thread=1, use_mmap=False),
        OLLAMA_NUM_PARALLEL="3",
        OLLAMA_KV_CACHE_TYPE="q8_0",
        OLLAMA_FLASH_ATTENTION="1",
    )

    spec = plan.spec
    assert (spec.num_ctx, spec.slots, spec.batch_size, spec.threads) == (8192, 3, 64, 1)
    assert (spec.use_mmap, spec.cache_type, spec.flash_attention) == (False, "q8_0", "on")
