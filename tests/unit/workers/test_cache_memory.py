"""Memory for prompt caches: lent to workers, shared out, kept, and dropped for what needs it."""

import fcntl
import os

import psutil
import pytest

from ollama_async.workers.cache_memory import MAX_KEPT, CacheMemory
from ollama_async.workers.messages import LimitCache
from tests.unit.workers.harness import plan, pool, turns

MIB = 1 << 20


@pytest.fixture
def memory():
    made = CacheMemory(4 * MIB)
    yield made
    made.close()


def fill(fd, size):
    os.pwrite(fd, b"x" * size, 0)


def content(fd):
    return os.pread(fd, 1, 0)


def lend(memory, instance_id, **spec):
    return memory.lend(instance_id, plan(**spec)).spec


def test_a_worker_gets_sealed_memory_of_the_limit(memory):
    spec = lend(memory, 1)

    assert os.fstat(spec.cache_fd).st_size == 4 * MIB
    assert os.fstat(spec.cache_fd).st_blocks == 0
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(spec.cache_fd, 0)
    assert fcntl.fcntl(spec.cache_fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_without_a_limit_or_for_embeddings_there_is_none(memory):
    assert lend(CacheMemory(0), 1).cache_fd == -1
    assert lend(memory, 1, embedding="encoder").cache_fd == -1


def test_the_next_worker_of_the_model_gets_what_was_kept(memory):
    spec = lend(memory, 1, model="a")
    fill(spec.cache_fd, 1)
    memory.take_back(1)
    memory.take_back(1)

    assert content(lend(memory, 2, model="b").cache_fd) == b"\0"
    assert content(lend(memory, 3, model="a").cache_fd) == b"x"


def test_many_models_that_come_and_go_take_a_bounded_number_of_descriptors(memory):
    before = psutil.Process().num_fds()
    for number in range(2 * MAX_KEPT):
        fill(lend(memory, number, model=f"m{number}").cache_fd, 1)
        memory.take_back(number)

    assert psutil.Process().num_fds() - before == MAX_KEPT
    assert content(lend(memory, -1, model="m0").cache_fd) == b"\0"
    assert content(lend(memory, -2, model=f"m{2 * MAX_KEPT - 1}").cache_fd) == b"x"


def test_a_worker_whose_predecessor_is_still_alive_begins_afresh(memory):
    fill(lend(memory, 1).cache_fd, 1)
    new = lend(memory, 2)
    assert content(new.cache_fd) == b"\0"

    memory.take_back(1)
    memory.take_back(2)
    assert content(lend(memory, 3).cache_fd) == b"\0"


@pytest.mark.parametrize("change", [{"cache_type": "q8_0"}, {"adapters": ("x",)}, {"engine": "e"}])
def test_another_kind_of_states_has_memory_of_its_own(memory, change):
    spec = lend(memory, 1, model="a")
    fill(spec.cache_fd, 1)
    memory.take_back(1)
    other = lend(memory, 2, **{"model": "a", **change})

    assert other.cache_key != spec.cache_key
    assert content(other.cache_fd) == b"\0"


def test_a_model_whose_file_has_changed_begins_afresh(memory, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"1")
    fill(lend(memory, 1, model=str(path)).cache_fd, 1)
    memory.take_back(1)
    path.write_bytes(b"12")

    assert content(lend(memory, 2, model=str(path)).cache_fd) == b"\0"


def test_all_that_is_kept_stays_within_the_limit(memory):
    for number in range(3):
        fill(lend(memory, number, model=str(number)).cache_fd, 2 * MIB)
        memory.take_back(number)
        memory.share_out(100 * MIB)

    found = [content(lend(memory, 10 + each, model=str(each)).cache_fd) for each in range(3)]
    assert found == [b"\0", b"x", b"x"]


def test_models_share_what_is_free_and_what_is_kept_gives_way_first(memory):
    fill(lend(memory, 1, model="a").cache_fd, MIB)
    memory.take_back(1)
    lend(memory, 2, model="b")

    assert memory.share_out(100 * MIB) == 4 * MIB
    assert memory.share_out(4 * MIB + 1) == 4 * MIB  # nothing is left for what is kept
    lend(memory, 3, model="c")
    assert memory.share_out(5 * MIB) == 5 * MIB // 2
    assert memory.share_out(-5) == 0
    assert content(lend(memory, 4, model="a").cache_fd) == b"\0"


async def test_a_reloaded_model_gets_its_memory_back():
    async with pool(cache_bytes=4 * MIB, capacity=9 * MIB) as harness:
        first = await harness.up("a")
        fill(first.plan.spec.cache_fd, 1)
        await harness.pool.unload("a")
        await turns()
        second = await harness.up("a")

        assert content(second.plan.spec.cache_fd) == b"x"


async def test_a_crashed_worker_leaves_its_memory():
    async with pool(cache_bytes=4 * MIB, capacity=9 * MIB) as harness:
        first = await harness.up("a")
        fill(first.plan.spec.cache_fd, 1)
        first.die()
        await turns()
        second = await harness.up("a")

        assert content(second.plan.spec.cache_fd) == b"x"


async def test_what_a_crashed_worker_leaves_counts_to_what_is_kept():
    async with pool(cache_bytes=4 * MIB, capacity=100 * MIB) as harness:
        for name in ("a", "b"):
            worker = await harness.up(name)
            fill(worker.plan.spec.cache_fd, 3 * MIB)
            if name == "a":
                await harness.pool.unload("a")
                await turns()
        worker.die()
        await turns()

        assert content((await harness.up("a")).plan.spec.cache_fd) == b"\0"
        assert content((await harness.up("b")).plan.spec.cache_fd) == b"x"


async def test_memory_with_which_a_worker_could_not_be_loaded_is_not_used_again():
    async with pool(cache_bytes=4 * MIB, capacity=9 * MIB) as harness:
        first = await harness.up("a")
        fill(first.plan.spec.cache_fd, 1)
        await harness.pool.unload("a")
        await turns()
        harness.submit("a")
        await turns()
        await harness.workers[-1].refuse("no")
        third = await harness.up("a")

        assert content(third.plan.spec.cache_fd) == b"\0"


async def test_a_load_waits_for_the_memory_of_the_worker_that_is_ending():
    async with pool(cache_bytes=4 * MIB, capacity=9 * MIB) as harness:
        first = await harness.up("a")
        fill(first.plan.spec.cache_fd, 1)
        first.holds_stop = True
        await harness.pool.unload("a")
        harness.submit("a")
        await turns()
        assert not harness.workers[-1].pid

        first.may_stop.set()
        await turns()
        assert content(harness.workers[-1].plan.spec.cache_fd) == b"x"
        await harness.workers[-1].ready()


async def test_a_worker_without_a_prompt_cache_is_told_no_limit():
    async with pool(cache_bytes=64 * MIB, capacity=130 * MIB, size=100 * MIB) as harness:
        harness.spec = {"embedding": "encoder"}
        first = await harness.up("small")
        harness.spec = {}
        await harness.up("b")

        assert not any(isinstance(message, LimitCache) for message in first.sent)


async def test_caches_give_way_to_another_model_and_grow_when_it_is_gone():
    async with pool(cache_bytes=64 * MIB, capacity=130 * MIB, size=100 * MIB) as harness:
        first = await harness.up("small")
        assert first.plan.spec.cache_bytes == 64 * MIB
        second = await harness.up("b")
        shares = [message.size_bytes for message in first.sent if isinstance(message, LimitCache)]
        assert shares == [second.plan.spec.cache_bytes]
        assert 2 * shares[0] <= 30 * MIB

        await harness.pool.unload("b")
        await turns()
        assert first.sent[-1] == LimitCache(64 * MIB)
