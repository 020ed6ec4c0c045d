"""How much two prompts share, and what slots make of it."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollama_async.workers.child.kv_pool import KVPool
from ollama_async.workers.child.prefix_query import PrefixQuery, common_prefix_length

tokens = st.lists(st.integers(0, 3), max_size=100)


@given(tokens, tokens, tokens)
@example([], [], [])
def test_the_shared_beginning_is_as_long_as_it_is(same, one, other):
    one, other = same + one, same + other
    truth = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        truth += 1

    assert common_prefix_length(one, other) == common_prefix_length(other, one) == truth


def filled(engine, *contents, owners=()):
    """A pool whose slots hold these, parked, in this order of use."""
    pool = KVPool(engine)
    for slot, content in zip(pool.all, contents, strict=False):
        slot.tokens = list(content)
        slot.owner = owners[slot.index] if owners else ""
        engine.cache[slot.index] = list(content)
        pool.release(slot)
    return pool


def admit(pool, query):
    return pool.admit(query, pool._engine.facts.num_ctx, 10)


def test_a_conversation_gets_its_slot_and_a_stranger_an_empty_one(fake_engine):
    pool = filled(fake_engine(num_ctx=500), [1] * 100, [2] * 100)

    assert admit(pool, PrefixQuery([1] * 100 + [5])).index == 0
    assert admit(pool, PrefixQuery([1] * 100 + [5])).index == 2
    assert admit(pool, PrefixQuery([1] * 100 + [5])).index == 3
    assert admit(pool, PrefixQuery([1] * 100 + [5])).index == 1
    assert admit(pool, PrefixQuery([7])) is None


def test_the_slot_unused_for_longest_goes_first(fake_engine):
    pool = filled(fake_engine(slots=3, num_ctx=500), [1] * 100, [2] * 100, [3] * 100)
    pool.release(admit(pool, PrefixQuery([1] * 101)))

    assert admit(pool, PrefixQuery([9])).index == 1


@pytest.mark.parametrize("can_trim_restored", [True, False])
def test_a_refused_copy_is_tried_again_only_where_the_source_may_lack_a_window(
    fake_engine, can_trim_restored
):
    engine = fake_engine(slots=3, num_ctx=500, can_copy=False)
    engine.facts = msgspec.structs.replace(engine.facts, can_trim_restored=can_trim_restored)
    pool = filled(engine, [1] * 100 + [2] * 150)
    for _ in range(2):
        assert admit(pool, PrefixQuery([1] * 100 + [3])).tokens == []

    assert len(engine.copies) == (1 if can_trim_restored else 2)


def test_a_slot_is_not_given_away_for_a_small_share(fake_engine):
    pool = filled(fake_engine(slots=2, num_ctx=500), [3] * 10, [1] * 40 + [2] * 200)
    slot = admit(pool, PrefixQuery([1] * 40 + [5] * 3))

    assert slot.index == 0
    assert slot.tokens == [1] * 40


def test_nothing_is_reused_without_permission(fake_engine):
    engine = fake_engine(slots=1, num_ctx=500)
    slot = admit(filled(engine, [1] * 100), PrefixQuery([1] * 100, reuses=False))

    assert slot.tokens == []
    assert engine.cache[0] == []


def test_what_was_computed_from_forgotten_tokens_is_not_reused(fake_engine):
    pool = filled(fake_engine(slots=2, num_ctx=500), range(200))
    slot = admit(pool, PrefixQuery(list(range(200))))
    pool.add_prompt(slot, [199])
    pool.shift(slot, 40, 60)
    query = PrefixQuery([*slot.tokens, 7])

    assert len(admit(pool, query).tokens) == 40, "copied"
    pool.release(slot)
    assert admit(pool, query) is slot
    assert len(slot.tokens) == 40
    pool.add_prompt(slot, query.prompt[40:])  # computed anew
    pool.release(slot)
    assert len(admit(pool, query).tokens) == len(query.prompt) - 1


# ----------------------------------------------------------------- of another owner

MODEL = [9] * 40
"""What the model itself brings."""


def owned(engine, *contents):
    """As :func:`filled`, the first slot for ``a``, the second for ``b``, …"""
    return filled(engine, *contents, owners="abcdefg")


def test_only_what_the_model_brings_is_shared_with_another_owner(fake_engine):
    pool = owned(fake_engine(num_ctx=500), MODEL + [1] * 100)
    prompt = MODEL + [1] * 100 + [2]
    slot = admit(pool, PrefixQuery(prompt, owner="x", public_tokens=len(MODEL)))

    assert slot.index != 0  # a conversation of another does not go on
    assert slot.tokens == MODEL
    assert slot.owner == "x"


def test_an_owner_is_served_with_all_of_its_own(fake_engine):
    pool = owned(fake_engine(num_ctx=500), MODEL + [1] * 100)
    slot = admit(pool, PrefixQuery(MODEL + [1] * 100 + [2], owner="a", public_tokens=len(MODEL)))

    assert slot.index == 0
    assert len(slot.tokens) == 140


def test_another_owners_slot_is_not_taken_for_what_the_model_brings(fake_engine):
    """It would have to be computed again for its owner, while other slots are empty."""
    pool = owned(fake_engine(num_ctx=500), [*MODEL, 1])

    assert admit(pool, PrefixQuery([*MODEL, 2], owner="x", public_tokens=len(MODEL))).index != 0


def test_a_slot_that_changes_hands_keeps_nothing_of_its_last_owner(fake_engine):
    pool = owned(fake_engine(slots=1, num_ctx=500), MODEL + [1] * 100)
    query = PrefixQuery(MODEL + [1] * 100 + [2], owner="x", public_tokens=len(MODEL))

    assert admit(pool, query).tokens == MODEL


def test_no_prompt_waits_for_one_that_it_may_not_reuse(fake_engine):
    pool = KVPool(fake_engine(num_ctx=500))
    others, own = PrefixQuery([1] * 100, owner="a"), PrefixQuery([1] * 100, owner="x")

    assert not pool.should_wait(PrefixQuery([1] * 90, owner="x"), [others])
    assert pool.should_wait(PrefixQuery([1] * 90, owner="x"), [own])
    assert pool.should_wait(PrefixQuery([1] * 90, owner="x", public_tokens=50), [others])


tails = st.lists(st.integers(0, 1), max_size=60)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.booleans(), tails), max_size=12
    )
)
def test_no_history_of_requests_serves_more_than_is_ones_own(fake_engine, history):
    """Whatever is reused of a prompt was sent by the same owner before, or is the model's."""
    pool = KVPool(fake_engine(slots=3, num_ctx=500))
    sent = {"a": [], "b": []}
    for owner, repeats, begins_alike, tail in history:
        prompt = (MODEL if begins_alike else []) + [0] * repeats + [*tail, 2]
        query = PrefixQuery(prompt, owner=owner, public_tokens=common_prefix_length(MODEL, prompt))
        slot = admit(pool, query)
        reused = len(slot.tokens)
        own = max((common_prefix_length(prompt, other) for other in sent[owner]), default=0)
        assert reused <= max(own, query.public_tokens)
        pool.add_prompt(slot, prompt[reused:])
        pool._engine.cache[slot.index] = list(prompt)
        pool.release(slot)
        sent[owner].append(prompt)
