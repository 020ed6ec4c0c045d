"""Load plans depend on the settings, the load options and the machine."""

import msgspec
import pytest

from ollama_async.core.errors import LoadFailed
from ollama_async.core.model_shape import ModelShape
from ollama_async.core.settings import Settings
from ollama_async.hw.machine import Gpu, Machine
from ollama_async.hw.placement import CPU
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.workers.load_plan import LoadPlanner

GIB = 1 << 30
GPU = Gpu(index=0, uuid="GPU-a", memory_bytes=140 * GIB, free_bytes=140 * GIB)
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


def every_plan(
    options=LoadOptions(),  # noqa: B008  # frozen
    *,
    target=TARGET,
    cores=2,
    gpus=(),
    train_ctx=32_768,
    **variables,
):
    machine = Machine(cores=cores, available_bytes=16 * GIB, gpus=tuple(gpus))
    target = msgspec.structs.replace(target, train_ctx=train_ctx)
    settings = Settings.from_environ({"OLLAMA_ASYNC_CACHE": "/cache", **variables})
    return LoadPlanner(settings, lambda: machine, {"LANG": "C", "HF_TOKEN": "x"})(target, options)


def plans(*args, **options):
    """Of each device and context the plan with most slots."""
    best = {}
    for plan in every_plan(*args, **options):
        best.setdefault((*plan.demand, plan.num_ctx), plan)
    return list(best.values())


def test_a_machine_without_gpus_has_one_plan():
    (plan,) = plans()

    assert list(plan.demand) == [CPU]
    assert (plan.num_ctx, plan.slots, plan.spec.gpu_layers) == (4096, 21, 0)
    assert plan.environ == {
        "LANG": "C",
        "OLLAMA_ASYNC_CACHE": "/cache",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert (plan.spec.num_ctx, plan.spec.slots, plan.spec.model) == (4096, 21, "/m.gguf")


def test_an_adapter_is_loaded_with_its_model():
    adapted = msgspec.structs.replace(TARGET, adapters=("/lora.gguf",))
    (plan,) = plans(target=adapted)

    assert plan.spec.adapters == ("/lora.gguf",)


def test_a_projector_is_loaded_with_its_model_and_takes_memory():
    seeing = msgspec.structs.replace(TARGET, projector="/mmproj.gguf")
    (plan,), (plain,) = plans(target=seeing), plans(target=TARGET)

    assert plan.spec.projector == "/mmproj.gguf"
    per_slot = sum(plain.demand.values()) / plain.slots
    assert sum(plan.demand.values()) > (256 << 20) + per_slot * plan.slots / 2


def test_a_model_with_a_projector_has_a_context_for_an_image():
    seeing = msgspec.structs.replace(TARGET, projector="/mmproj.gguf")
    (plan,) = plans(target=seeing, OLLAMA_CONTEXT_LENGTH="512")
    assert plan.num_ctx == 2048
    (plan,) = plans(target=seeing, train_ctx=1024, OLLAMA_CONTEXT_LENGTH="512")
    assert plan.num_ctx == 1024


def test_a_gpu_is_tried_first_and_pinned_by_its_uuid():
    first, *_, last = plans(gpus=[GPU])

    assert list(first.demand) == ["GPU-a"]
    assert first.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert (first.num_ctx, first.spec.gpu_layers) == (32_768, -1)
    assert list(last.demand) == [CPU]


def test_num_gpu_0_keeps_the_model_off_the_gpu():
    (plan,) = plans(LoadOptions(num_gpu=0), gpus=[GPU])

    assert list(plan.demand) == [CPU]


def test_the_options_of_ollamas_own_example_load_on_a_machine_without_gpus():
    (plan,) = plans(LoadOptions(num_ctx=1024, num_batch=2, num_gpu=1, main_gpu=0, num_thread=8))

    assert list(plan.demand) == [CPU]
    assert plan.spec.gpu_layers == 0


def test_a_default_context_may_be_smaller_than_ollamas():
    at = [(list(plan.demand), plan.num_ctx) for plan in plans(train_ctx=131_072, gpus=[GPU])]

    assert at == [(["GPU-a"], 131_072), (["GPU-a"], 32_768), (["GPU-a"], 4096), ([CPU], 4096)]


def test_a_chosen_context_is_not_reduced():
    named = plans(LoadOptions(num_ctx=65_536), train_ctx=131_072, gpus=[GPU])
    configured = plans(train_ctx=131_072, gpus=[GPU], OLLAMA_CONTEXT_LENGTH="65536")

    assert [plan.num_ctx for plan in named] == [65_536, 65_536]
    assert [plan.num_ctx for plan in configured] == [65_536, 65_536]


def test_a_gpu_that_does_not_exist_is_an_error():
    with pytest.raises(LoadFailed, match="main_gpu 3"):
        plans(LoadOptions(main_gpu=3), gpus=[GPU])


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 3), (4, 3), (16, 15)])
def test_with_four_cores_one_is_left_to_the_gateway(cores, threads):
    assert plans(cores=cores)[0].spec.threads == threads


def test_load_options_and_settings_reach_the_worker():
    (plan,) = plans(
        LoadOptions(num_ctx=8192, num_batch=64, num_thread=1, use_mmap=False),
        OLLAMA_NUM_PARALLEL="3",
        OLLAMA_KV_CACHE_TYPE="q8_0",
        OLLAMA_FLASH_ATTENTION="1",
    )

    spec = plan.spec
    assert (spec.num_ctx, spec.slots, spec.batch_size, spec.threads) == (8192, 3, 64, 1)
    assert (spec.use_mmap, spec.cache_type, spec.flash_attention) == (False, "q8_0", "on")


def test_fewer_slots_are_offered_too_for_what_fits_beside_others():
    offered = every_plan()

    assert [plan.slots for plan in offered] == [21, 10, 5]
    assert sorted((plan.demand[CPU] for plan in offered), reverse=True) == [
        plan.demand[CPU] for plan in offered
    ]
    assert [plan.slots for plan in every_plan(OLLAMA_NUM_PARALLEL="4")] == [4]


def test_slots_do_not_depend_on_what_is_free_while_another_model_is_loaded():
    seen = [Machine(cores=2, available_bytes=16 * GIB)]
    plan = LoadPlanner(Settings.from_environ({}), lambda: seen[-1], {})
    before = plan(TARGET, LoadOptions())
    seen.append(Machine(cores=2, available_bytes=GIB // 2))

    assert [each.slots for each in plan(TARGET, LoadOptions())] == [each.slots for each in before]


def test_the_memory_limit_is_somewhat_above_the_plan():
    (plan,) = plans(OLLAMA_CONTEXT_LENGTH="32768", OLLAMA_NUM_PARALLEL="32")

    planned = plan.demand[CPU]
    assert planned > 10 * GIB
    assert 1.4 * planned < plan.limits.memory_bytes < 1.8 * planned
    assert (plan.limits.slots, plan.limits.num_ctx) == (32, 32_768)


def test_a_gpu_without_fused_attention_for_the_heads_has_scores_of_the_whole_context():
    def demand(head_length, **variables):
        shape = ModelShape(row_bytes=1000, heads=32, head_length=head_length)
        target = msgspec.structs.replace(TARGET, shape=shape)
        options = LoadOptions(num_ctx=32_768)
        variables["OLLAMA_NUM_PARALLEL"] = "1"
        return next(iter(plans(options, target=target, gpus=[GPU], **variables)[0].demand.values()))

    scores = 32 * 32_768 * 512 * 4
    assert demand(8) - demand(128) > 0.8 * scores
    assert demand(128, OLLAMA_FLASH_ATTENTION="0") == demand(8)
    assert demand(8, OLLAMA_FLASH_ATTENTION="1") == demand(128)


@pytest.mark.parametrize(("asked", "threads"), [(1, 1), (3, 3), (4, 4), (4096, 4)])
def test_a_model_gets_no_more_threads_than_there_are_cores(asked, threads):
    assert plans(LoadOptions(num_thread=asked), cores=4)[0].spec.threads == threads


def test_a_model_gets_no_larger_batch_than_a_step_should_be():
    assert plans(LoadOptions(num_batch=2**20))[0].spec.batch_size == 2048


ENCODER = msgspec.structs.replace(TARGET, embedding="encoder", cache_bytes_per_token=0)
EMBEDDING = msgspec.structs.replace(TARGET, embedding="whole")


def test_an_embedding_model_has_many_requests_and_one_batch():
    (plan,) = plans(target=EMBEDDING, OLLAMA_NUM_PARALLEL="1")
    (larger,) = plans(LoadOptions(num_ctx=8192), target=EMBEDDING)

    assert (plan.slots, plan.num_ctx, plan.spec.batch_size) == (64, 4096, 256)
    assert plan.spec.embedding == "whole"
    assert plan.limits.slots == 64
    # the cache of one batch, whatever its slots
    assert plan.demand[CPU] < GIB + 4096 * 12_288 + GIB // 2
    assert larger.demand[CPU] > plan.demand[CPU]


def test_the_context_of_an_embedding_model():
    def contexts(**options):
        return [plan.num_ctx for plan in plans(target=EMBEDDING, **options)]

    assert contexts(train_ctx=512) == [512]
    assert contexts(gpus=[GPU]) == [8192, 4096, 4096]  # the last is the CPU's
    assert contexts(OLLAMA_CONTEXT_LENGTH="32768") == [32_768]


def test_batches_of_several_inputs_are_larger_on_a_gpu_or_as_the_model_says():
    encoder, *_ = plans(target=ENCODER, gpus=[GPU])
    decoder, *_ = plans(target=EMBEDDING, gpus=[GPU])
    (chosen,) = plans(LoadOptions(num_batch=1024), target=EMBEDDING)
    batches = [plan.spec.batch_size for plan in (encoder, decoder, chosen)]
    assert batches == [2048, 512, 1024]


def test_a_long_input_that_can_be_split_takes_less_memory():
    shape = ModelShape(row_bytes=20_000, vocab_size=150_000, masks=1)
    demands = {}
    for kind in ("whole", "split"):
        target = msgspec.structs.replace(EMBEDDING, embedding=kind, shape=shape)
        (plan,) = plans(target=target)
        demands[kind] = plan.demand[CPU]

    assert demands["split"] < 2 * GIB
    assert demands["whole"] - demands["split"] > 3000 * 150_000 * 8


def test_a_worker_may_allocate_logits_that_an_encoder_never_has():
    shape = msgspec.structs.replace(TARGET.shape, vocab_size=250_000)
    (plan,) = plans(target=msgspec.structs.replace(ENCODER, shape=shape))
    (small,) = plans(target=ENCODER)

    assert plan.limits.memory_bytes - small.limits.memory_bytes >= 4096 * 250_000 * 4
    assert plan.demand[CPU] - small.demand[CPU] < 100 << 20


EIGHT_B = msgspec.structs.replace(
    TARGET,
    weights_bytes=8 * GIB,
    cache_bytes_per_token=128 << 10,
    shape=ModelShape(masks=1, row_bytes=1 << 16, vocab_size=128_000, heads=32, head_length=128),
)


def test_a_pool_of_a_cpu_has_more_places_in_the_same_memory():
    (plan,) = plans(target=EIGHT_B)

    assert plan.slots == 2
    assert (plan.spec.pool_slots, plan.spec.pool_cells) == (16, 8192)
    assert plan.limits.slots == 16


def test_a_number_of_slots_bounds_those_of_a_pool():
    (plan,) = plans(target=EIGHT_B, OLLAMA_NUM_PARALLEL="3")

    assert (plan.spec.pool_slots, plan.spec.pool_cells) == (3, 3 * 4096)
    assert plan.limits.slots == 3


def test_a_gpu_has_separate_caches():
    assert plans(target=EIGHT_B, gpus=[GPU])[0].spec.pool_cells == 0
