"""How much two prompts share, and what slots make of it."""

from hypothesis import example, given
from hypothesis import strategies as st

from ollama_async.workers.child.prefix import shared_length
from ollama_async.workers.child.slots import Claim, Slots

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

    assert shared_length(one, other) == shared_length(other, one) == truth


def filled(engine, *contents):
    slots = Slots(engine)
    for slot, content in zip(slots._all, contents, strict=False):
        slot.tokens = list(content)
        engine.cache[slot.index] = list(content)
        slot.used_at = slot.index + 1
    slots._uses = len(contents)
    return slots


def test_a_conversation_gets_its_slot_and_a_stranger_an_empty_one(fake_engine):
    slots = filled(fake_engine(num_ctx=500), [1] * 100, [2] * 100)

    assert slots.take(Claim([1] * 100 + [5])).index == 0
    assert slots.take(Claim([1] * 100 + [5])).index == 2
    assert slots.take(Claim([1] * 100 + [5])).index == 3
    assert slots.take(Claim([1] * 100 + [5])).index == 1
    assert slots.take(Claim([7])) is None


def test_the_slot_unused_for_longest_goes_first(fake_engine):
    slots = filled(fake_engine(slots=3, num_ctx=500), [1] * 100, [2] * 100, [3] * 100)
    slot = slots.take(Claim([1] * 100))
    slots.release(slot)

    assert slots.take(Claim([9])).index == 1


def test_a_slot_is_not_given_away_for_a_small_share(fake_engine):
    slots = filled(fake_engine(slots=2, num_ctx=500), [1] * 40 + [2] * 200, [3] * 10)
    slots.release(slots.take(Claim([3] * 10)))  # slot 0 is the stalest now
    prompt = [1] * 40 + [5] * 3
    slots._all[0].used_at = 99

    slot = slots.take(Claim(prompt))

    assert slot.index == 1
    assert slots.prepare(slot, Claim(prompt)) == 40
    assert slot.tokens == [1] * 40


def test_nothing_is_reused_where_that_is_not_wanted(fake_engine):
    engine = fake_engine(num_ctx=500)
    slots = filled(engine, [1] * 100)
    slot = slots._all[0]

    assert slots.prepare(slot, Claim([1] * 100, reuses=False)) == 0
    assert engine.cache[0] == []


def test_what_was_computed_from_forgotten_tokens_is_not_reused(fake_engine):
    slots = filled(fake_engine(slots=2, num_ctx=500), range(200))
    slot = slots.take(Claim(list(range(200))))
    slots.shift(slot, 40, 60)
    prompt = [*slot.tokens, 7]

    assert slots.prepare(slots.take(Claim(prompt)), Claim(prompt)) == 40  # copied
    slots.release(slot)
    assert slots.prepare(slot, Claim(prompt)) == 40
    slot.tokens = list(prompt)  # computed anew
    assert slots.prepare(slot, Claim(prompt)) == len(prompt) - 1
