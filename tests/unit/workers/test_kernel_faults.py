"""A model whose worker dies as our own kernels may have let it is loaded with stock ones later."""

import pytest

from tests.unit.workers.harness import RecordingSink, pool, turns


async def _next_avoids_kernels(it) -> bool:
    await turns()
    if len(it.workers) == 1:
        it.submit()
        await turns()
    return it.workers[1].plan.spec.avoids_kernels


@pytest.mark.parametrize(
    ("kernels", "has_faulted", "avoids"),
    [
        ("own (avx2)", True, True),
        ("own (avx2)", False, False),  # killed, out of memory, an assertion about a request
        ("stock (the engine library must avoid fast kernels)", True, False),
    ],
)
async def test_after_a_fault_of_native_code(kernels, has_faulted, avoids):
    async with pool() as it:
        worker = await it.up(kernels=kernels)
        assert not worker.plan.spec.avoids_kernels
        it.submit(sink=RecordingSink(has_sent=False))
        worker.die(has_faulted=has_faulted)
        assert await _next_avoids_kernels(it) == avoids


@pytest.mark.parametrize(
    ("death", "avoids"), [({"has_faulted": True}, True), ({"has_aborted": True}, True), ({}, False)]
)
async def test_after_a_death_while_the_model_is_loaded(death, avoids):
    async with pool() as it:
        it.submit()
        await turns()
        it.workers[0].greet()
        it.workers[0].die(**death)
        assert await _next_avoids_kernels(it) == avoids
