"""How much two prompts share, and what slots make of it."""

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


def filled(engine, *contents):
    slots = KVPool(engine)
    for slot, content in zip(slots.all, contents, strict=False):
        slot.tokens = list(content)
        engine.cache[slot.index] = list(content)
        slot.used_at = slot.index + 1
    slots._uses = len(contents)
    return slots


def test_a_conversation_gets_its_slot_and_a_stranger_an_empty_one(fake_engine):
    slots = filled(fake_engine(num_ctx=500), [1] * 100, [2] * 100)

    assert slots.take(PrefixQuery([1] * 100 + [5])).index == 0
    assert slots.take(PrefixQuery([1] * 100 + [5])).index == 2
    assert slots.take(PrefixQuery([1] * 100 + [5])).index == 3
    assert slots.take(PrefixQuery([1] * 100 + [5])).index == 1
    assert slots.take(PrefixQuery([7])) is None


def test_the_slot_unused_for_longest_goes_first(fake_engine):
    slots = filled(fake_engine(slots=3, num_ctx=500), [1] * 100, [2] * 100, [3] * 100)
    slot = slots.take(PrefixQuery([1] * 100))
    slot.is_busy = False

    assert slots.take(PrefixQuery([9])).index == 1


def test_a_slot_is_not_given_away_for_a_small_share(fake_engine):
    slots = filled(fake_engine(slots=2, num_ctx=500), [1] * 40 + [2] * 200, [3] * 10)
    slots.take(PrefixQuery([3] * 10)).is_busy = False  # slot 0 is the stalest now
    prompt = [1] * 40 + [5] * 3
    slots.all[0].used_at = 99

    slot = slots.take(PrefixQuery(prompt))

    assert slot.index == 1
    assert slots.prepare(slot, PrefixQuery(prompt)) == 40
    assert slot.tokens == [1] * 40


def test_nothing_is_reused_without_permission(fake_engine):
    engine = fake_engine(num_ctx=500)
    slots = filled(engine, [1] * 100)
    slot = slots.all[0]

    assert slots.prepare(slot, PrefixQuery([1] * 100, reuses=False)) == 0
    assert engine.cache[0] == []


def test_what_was_computed_from_forgotten_tokens_is_not_reused(fake_engine):
    slots = filled(fake_engine(slots=2, num_ctx=500), range(200))
    slot = slots.take(PrefixQuery(list(range(200))))
    slots.shift(slot, 40, 60)
    prompt = [*slot.tokens, 7]

    assert slots.prepare(slots.take(PrefixQuery(prompt)), PrefixQuery(prompt)) == 40  # copied
    slot.is_busy = False
    assert slots.prepare(slot, PrefixQuery(prompt)) == 40
    slot.tokens = list(prompt)  # computed anew
    assert slots.prepare(slot, PrefixQuery(prompt)) == len(prompt) - 1


# ----------------------------------------------------------------- of another owner

MODEL = [9] * 40
"""What the model itself brings."""


def owned(engine, *contents):
    """KVPool with these contents, the first of ``a``, the second of ``b``, …"""
    slots = filled(engine, *contents)
    for slot, owner in zip(slots.all, "abcdefg", strict=False):
        slot.owner = owner
    return slots


def test_only_what_the_model_brings_is_shared_with_another_owner(fake_engine):
    slots = owned(fake_engine(num_ctx=500), MODEL + [1] * 100)
    prompt = MODEL + [1] * 100 + [2]
    query = PrefixQuery(prompt, owner="x", public_tokens=len(MODEL))
    slot = slots.take(query)

    assert slot.index != 0  # a conversation of another does not go on
    assert slots.prepare(slot, query) == len(MODEL)
    assert slot.owner == "x"


def test_an_owner_is_served_with_all_of_its_own(fake_engine):
    slots = owned(fake_engine(num_ctx=500), MODEL + [1] * 100)
    query = PrefixQuery(MODEL + [1] * 100 + [2], owner="a", public_tokens=len(MODEL))
    slot = slots.take(query)

    assert slot.index == 0
    assert slots.prepare(slot, query) == 140


def test_another_owners_slot_is_not_taken_for_what_the_model_brings(fake_engine):
    """It would have to be computed again for its owner, while other slots are empty."""
    slots = owned(fake_engine(num_ctx=500), [*MODEL, 1])

    assert slots.take(PrefixQuery([*MODEL, 2], owner="x", public_tokens=len(MODEL))).index != 0


def test_a_slot_that_changes_hands_keeps_nothing_of_its_last_owner(fake_engine):
    slots = owned(fake_engine(slots=1, num_ctx=500), MODEL + [1] * 100)
    query = PrefixQuery(MODEL + [1] * 100 + [2], owner="x", public_tokens=len(MODEL))

    assert slots.prepare(slots.take(query), query) == len(MODEL)


def test_a_slot_that_was_taken_is_its_last_owners_until_it_is_prepared(fake_engine):
    """Else a second request of the new owner could copy from it."""
    slots = owned(fake_engine(slots=2, num_ctx=500), [1] * 100, [2] * 10)
    query = PrefixQuery([1] * 100 + [2], owner="b")
    taken = [slots.take(query), slots.take(query)]

    assert [slots.prepare(slot, query) for slot in reversed(taken)] == [0, 0]


def test_no_prompt_waits_for_one_that_it_may_not_reuse(fake_engine):
    slots = KVPool(fake_engine(num_ctx=500))
    others, own = PrefixQuery([1] * 100, owner="a"), PrefixQuery([1] * 100, owner="x")

    assert not slots.should_wait(PrefixQuery([1] * 90, owner="x"), [others])
    assert slots.should_wait(PrefixQuery([1] * 90, owner="x"), [own])
    assert slots.should_wait(PrefixQuery([1] * 90, owner="x", public_tokens=50), [others])


tails = st.lists(st.integers(0, 1), max_size=60)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.booleans(), tails), max_size=12
    )
)
def test_no_history_of_requests_serves_more_than_is_ones_own(fake_engine, history):
    """Whatever is reused of a prompt was sent by the same owner before, or is the model's."""
    slots = KVPool(fake_engine(slots=3, num_ctx=500))
    sent = {"a": [], "b": []}
    for owner, repeats, begins_alike, tail in history:
        prompt = (MODEL if begins_alike else []) + [0] * repeats + [*tail, 2]
        query = PrefixQuery(prompt, owner=owner, public_tokens=common_prefix_length(MODEL, prompt))
        slot = slots.take(query)
        reused = slots.prepare(slot, query)
        own = max((common_prefix_length(prompt, other) for other in sent[owner]), default=0)
        assert reused <= max(own, query.public_tokens)
        slot.tokens = list(prompt)
        slots._engine.cache[slot.index] = list(prompt)
        slot.is_busy = False
        sent[owner].append(prompt)
