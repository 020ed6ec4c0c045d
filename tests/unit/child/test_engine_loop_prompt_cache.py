"""The engine loop with a prompt cache: more conversations than slots, one worker after another."""

from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.workers.child.host_prompt_cache import MIN_TOKENS
from ollama_async.workers.child.prefix_query import PrefixQuery
from tests.unit.child.conftest import FakeEngine, answer_to
from tests.unit.child.loop_harness import LoopHarness, prepared
from tests.unit.child.pooled_engine import PooledEngine
from tests.unit.child.state_harness import memfd, prompt_cache

NUM_CTX = 400
PAGES = 400


@contextmanager
def worker(fd, engine):
    """A loop whose prompt cache is in this memory; in the end it stops in good order."""
    with prompt_cache(fd, engine) as cache:
        harness = LoopHarness(engine, prompt_cache=cache)
        yield harness
        harness.engine_loop.stop()
        harness.engine_loop.run()


@pytest.fixture
def fd():
    with memfd(PAGES) as made:
        yield made


def separate(slots=2):
    return FakeEngine(slots, NUM_CTX)


def pooled(slots=2):
    return PooledEngine(slots, NUM_CTX, NUM_CTX)


engines = pytest.mark.parametrize("make_engine", [separate, pooled])


def say(harness, number, prompt, count=5, owner=""):
    """The usage, and the conversation with the answer and another question."""
    harness.put(prepared(number, prompt, count, num_ctx=NUM_CTX, owner=owner))
    harness.finish(number)
    held = [slot.tokens for slot in harness.engine_loop.pool.all]
    whole = max((each for each in held if each[: len(prompt)] == prompt), key=len)
    return harness.ends()[number].usage, [*whole, 60, 61]


@engines
def test_conversations_that_take_turns_are_computed_once(fd, make_engine):
    with worker(fd, make_engine()) as harness:
        chats = [[number] * 150 for number in range(6)]
        number = 0
        for _ in range(3):
            for chat, prompt in enumerate(chats):
                number += 1
                usage, chats[chat] = say(harness, number, prompt)
                assert harness.texts()[number] == answer_to(prompt, 5)
                assert usage.cached > len(prompt) - 2 * MIN_TOKENS or number <= len(chats)
                assert usage.restored in {0, usage.cached}
        evaluated = sum(tokens for rows in harness.engine.steps for _, tokens, _ in rows)

    assert evaluated < 6 * 150 + 18 * MIN_TOKENS


@engines
def test_the_next_worker_goes_on_with_what_was_in_slots_and_in_memory(fd, make_engine):
    with worker(fd, make_engine()) as harness:
        chats = [say(harness, n, [n] * 150)[1] for n in range(5)]
    with worker(fd, make_engine()) as harness:
        for number, chat in enumerate(chats):
            usage, _ = say(harness, number, chat)
            assert usage.cached == usage.restored >= len(chat) - 3


def test_the_conversation_used_last_is_the_last_to_give_way_in_the_next_worker():
    with memfd(14) as fd:
        with worker(fd, separate(slots=4)) as harness:
            chats = [say(harness, n, [n] * 150)[1] for n in range(4)]
        with worker(fd, separate(slots=1)) as harness:
            for number in range(5):  # only some fit beside the four
                say(harness, number, [10 + number] * 250)
            found = [harness.engine_loop._prompt_cache.find(PrefixQuery(chat)) for chat in chats]
    assert [bool(each) for each in found] == sorted(bool(each) for each in found)


def test_what_another_slot_holds_is_not_saved(fd):
    with worker(fd, separate(slots=3)) as harness:
        say(harness, 1, [7] * 100)
        say(harness, 2, [7] * 100 + [8] * 150)
        say(harness, 3, [1] * 100)
        say(harness, 4, [2] * 100)  # takes the slot of the first

        assert harness.engine_loop._prompt_cache.count == 0


def test_no_owner_gets_what_another_has_sent(fd):
    with worker(fd, separate(slots=1)) as harness:
        say(harness, 1, [7] * 100, owner="ann")
        say(harness, 2, [8] * 100, owner="bob")
        usage, _ = say(harness, 3, [7] * 120, owner="bob")
        assert usage.cached == 0
        usage, _ = say(harness, 4, [7] * 120, owner="ann")
        assert usage.cached >= 100


def test_a_heartbeat_tells_what_is_stored(fd):
    with worker(fd, separate(slots=1)) as harness:
        for number in range(3):
            say(harness, number, [number] * 100)
        heartbeat = harness.engine_loop._heartbeat()

    assert heartbeat.stored_states == 2
    assert heartbeat.stored_bytes > 2 * 4 * 100


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([40, 90, 160]), st.sampled_from("ab")),
        min_size=2,
        max_size=14,
    ),
    st.sampled_from([separate, pooled]),
    st.sampled_from([3, 8, PAGES]),
    st.integers(1, 14),
)
def test_whatever_is_restored_answers_are_those_of_prompts_computed_afresh(
    turns, make_engine, pages, restart
):
    number = 0
    with memfd(pages) as fd:
        for part in (turns[:restart], turns[restart:]):
            with worker(fd, make_engine()) as harness:
                for chat, size, owner in part:
                    number += 1
                    prompt = [chat] * size + [chat + 5] * (size // 2)
                    harness.put(prepared(number, prompt, 4, num_ctx=NUM_CTX, owner=owner))
                    harness.finish(number)
                    assert harness.texts()[number] == answer_to(prompt, 4)
