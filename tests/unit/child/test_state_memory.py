"""What a worker leaves in memory for the next one, and what that makes of it."""

import os
import random
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.state_memory import (
    DATA_OFFSET,
    MAX_STATES,
    PAGE_BYTES,
    MemoryUnusable,
    StateMemory,
)
from tests.unit.child.state_harness import KEY, memfd, opened, raw

PAGES = 32
RECORDS = 64


def tokens_of(*numbers):
    return array("i", numbers).tobytes()


def put(memory, index, tokens, owner="", size=100, fill=7):
    state = memory.allocate(index, tokens, owner, size)
    if state is not None:
        memory.view(state)[:] = fill
        memory.publish(state)
    return state


def content(memory):
    return [
        (state.tokens, state.owner, bytes(memory.view(state)), memory.is_intact(state))
        for state in memory.find_states()
    ]


@pytest.fixture
def fd():
    with memfd(PAGES) as made:
        yield made


def test_the_next_worker_finds_the_states_in_the_order_of_their_use(fd):
    with opened(fd) as memory:
        first, second = put(memory, 5, tokens_of(1, 2), "ann", fill=1), put(memory, 3, tokens_of(3))
        memory.touch(first)

    with opened(fd) as memory:
        assert content(memory) == [
            (tokens_of(3), "", bytes([7]) * 100, True),
            (tokens_of(1, 2), "ann", bytes([1]) * 100, True),
        ]
    assert (first.index, second.index) == (5, 3)


def test_the_states_of_another_model_are_forgotten_and_their_memory_is_given_back(fd):
    with opened(fd) as memory:
        put(memory, 0, tokens_of(1), size=20 * PAGE_BYTES)

    with opened(fd, b"o" * 32) as memory:
        assert os.fstat(fd).st_blocks == PAGE_BYTES // 512
        assert content(memory) == []


def test_a_state_that_was_being_written_does_not_count(fd):
    with opened(fd) as memory:
        put(memory, 0, tokens_of(1))
        torn = memory.allocate(1, tokens_of(2), "", 100)
        memory.view(torn)[:50] = 1

    with opened(fd) as memory:
        assert [state for state, *_ in content(memory)] == [tokens_of(1)]


def test_a_state_during_whose_restoring_the_worker_died_is_gone(fd):
    with opened(fd) as memory:
        memory.hide(put(memory, 0, tokens_of(1)))
        kept = put(memory, 1, tokens_of(2))
        memory.hide(kept)
        memory.show(kept)

    with opened(fd) as memory:
        assert [state for state, *_ in content(memory)] == [tokens_of(2)]


def test_removed_states_make_space(fd):
    with opened(fd) as memory:
        size = (PAGES // 2 - 1) * PAGE_BYTES
        first = put(memory, 0, tokens_of(1), size=size)
        assert put(memory, 1, tokens_of(2), size=size)
        assert put(memory, 2, tokens_of(3), size=1) is None
        memory.remove(first)
        assert put(memory, 2, tokens_of(3), size=size)

    with opened(fd) as memory:
        assert [state for state, *_ in content(memory)] == [tokens_of(2), tokens_of(3)]


def test_a_limit_gives_memory_back(fd):
    with opened(fd) as memory:
        put(memory, 0, tokens_of(1))
        far = put(memory, 1, tokens_of(2), size=20 * PAGE_BYTES)
        before = os.fstat(fd).st_blocks
        memory.remove(far)
        memory.set_limit(DATA_OFFSET + 4 * PAGE_BYTES)

        assert os.fstat(fd).st_blocks <= before - 19 * PAGE_BYTES // 512
        assert put(memory, 1, tokens_of(2), size=3 * PAGE_BYTES) is None
        assert put(memory, 1, tokens_of(2))


def test_a_descriptor_that_is_no_sealed_memory_is_refused(tmp_path):
    with memfd(4, seals=0) as fd, pytest.raises(MemoryUnusable):
        StateMemory(fd, KEY)
    with (tmp_path / "file").open("w+b") as file, pytest.raises(MemoryUnusable):
        StateMemory(file.fileno(), KEY)
    with memfd(0) as fd, pytest.raises(MemoryUnusable):
        StateMemory(fd, KEY)


@pytest.mark.parametrize("part", ["directory", "tokens", "state"])
def test_a_changed_byte_costs_the_state(fd, part):
    with opened(fd) as memory:
        state = put(memory, 0, tokens_of(1, 2, 3), "ann")
        put(memory, 1, tokens_of(9))
    at = {"directory": 64 + 9, "tokens": state.offset, "state": state.state_offset + 50}[part]
    with raw(fd) as mapped:
        mapped[at] ^= 0x10

    with opened(fd) as memory:
        assert [tokens for tokens, *_, intact in content(memory) if intact] == [tokens_of(9)]


def test_states_that_overlap_do_not_both_count(fd):
    with opened(fd) as memory:
        put(memory, 0, tokens_of(1))
    with raw(fd) as mapped:
        record = mapped[64 : 64 + RECORDS]
        mapped[64 + RECORDS : 64 + 2 * RECORDS] = record

    with opened(fd) as memory:
        assert len(content(memory)) == 1
        assert put(memory, 7, tokens_of(4))
    with opened(fd) as memory:
        assert len(content(memory)) == 2


@given(st.integers(0), st.lists(st.tuples(st.integers(0, DATA_OFFSET + 3000), st.binary())))
def test_whatever_a_hostile_worker_writes_is_read_within_bounds(seed, patches):
    chance = random.Random(seed)
    with memfd(PAGES) as fd:
        with opened(fd) as memory:
            for index in range(6):
                put(memory, index, tokens_of(*range(index + 1)), "o" * index, 300 * index + 1)
        with raw(fd) as mapped:
            for offset, data in patches:
                mapped[offset : offset + len(data)] = data
            for _ in range(chance.randrange(40)):
                at = chance.randrange(64, 64 + 6 * RECORDS)
                mapped[at] = chance.choice((0, 1, 16, 127, 128, 255))

        with opened(fd) as memory:
            states = memory.find_states()
            spans = sorted((state.offset, state.offset + state.size) for state in states)
            assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
            assert all(len(memory.view(state)) == state.state_bytes for state in states)
            free = set(range(MAX_STATES)) - {state.index for state in states}
            put(memory, min(free), tokens_of(77))
        with opened(fd) as memory:
            assert len(content(memory)) in {len(states), len(states) + 1}
