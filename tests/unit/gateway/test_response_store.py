"""The store of responses: what is dropped, what is kept, and who may see it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.gateway.response_store import (
    RESPONSE_LIMIT_BYTES,
    Owner,
    ResponseStore,
    StoredResponse,
)

ANN, BOB = Owner("10.0.0.1", b""), Owner("10.0.0.2", b"")


def make(response_id, owner=ANN, *, size=0, previous=None, items=()):
    return StoredResponse(
        id=response_id,
        owner=owner,
        answer=b"x" * size,
        input=[b"[]"],
        item_ids=list(items),
        previous=previous,
    )


ONE = make("0").size


def ids(store, names, owner=ANN):
    return [name for name in names if store.get(owner, name) is not None]


def test_a_response_is_found_by_its_id_and_those_of_its_items():
    store = ResponseStore()
    response = make("r", items=["i", "j"])
    store.add(response)

    assert store.get(ANN, "r") is response
    assert store.find_item(ANN, "j") is response
    assert store.get(ANN, "i") is None
    assert store.find_item(ANN, "r") is None


@pytest.mark.parametrize("other", [BOB, Owner(ANN.client, b"another key")])
def test_nobody_else_finds_it_or_deletes_it(other):
    store = ResponseStore()
    store.add(make("r", items=["i"]))

    assert store.get(other, "r") is None
    assert store.find_item(other, "i") is None
    assert not store.delete(other, "r")
    assert store.get(ANN, "r") is not None


def test_an_item_of_another_key_with_the_same_id_hides_none():
    """Clients may give their items ids of their own."""
    store, other = ResponseStore(), Owner(ANN.client, b"another key")
    mine, others = make("r", items=["i"]), make("s", other, items=["i"])
    store.add(mine)
    store.add(others)

    assert store.find_item(ANN, "i") is mine
    assert store.find_item(other, "i") is others


def test_the_least_recently_used_goes_when_there_are_too_many():
    store = ResponseStore(limit_count=3)
    for name in "abc":
        store.add(make(name, items=[f"item {name}"]))
    store.get(ANN, "a")

    store.add(make("d"))

    assert ids(store, "abcd") == ["a", "c", "d"]
    assert store.find_item(ANN, "item b") is None


def test_as_many_go_as_make_space_for_a_large_one():
    store = ResponseStore(limit_bytes=4 * ONE)
    for name in "abcd":
        store.add(make(name))

    store.add(make("e", size=ONE))

    assert ids(store, "abcde") == ["c", "d", "e"]
    assert store.size == 4 * ONE


def test_one_that_is_too_large_is_not_stored():
    store = ResponseStore()
    store.add(make("a"))

    store.add(make("b", size=RESPONSE_LIMIT_BYTES))

    assert ids(store, "ab") == ["a"]


def test_a_client_that_fills_the_store_loses_its_own():
    store = ResponseStore(limit_bytes=10 * ONE)
    store.add(make("b", BOB))

    for number in range(30):
        store.add(make(str(number)))

    assert store.get(BOB, "b") is not None
    assert store.size == 10 * ONE


def test_a_client_with_many_small_ones_does_not_push_out_a_large_one():
    store = ResponseStore(limit_count=10, limit_bytes=100 * ONE)
    store.add(make("b", BOB, size=20 * ONE))

    for number in range(30):
        store.add(make(str(number)))

    assert store.get(BOB, "b") is not None
    assert store.count == 10


def test_a_conversation_takes_the_memory_of_its_turns():
    store = ResponseStore()
    last = None
    for number in range(10):
        last = make(str(number), previous=last)
        store.add(last)

    assert store.size == sum(turn.size for turn in last.turns())
    assert [turn.id for turn in last.turns()] == list("0123456789")


def test_what_a_later_response_continues_counts_until_that_goes():
    store = ResponseStore()
    first = make("a")
    second = make("b", previous=first)
    store.add(first)
    store.add(second)

    assert store.delete(ANN, "a")

    assert store.get(ANN, "a") is None
    assert store.get(ANN, "b").turns() == [first, second]
    assert store.size == first.size + second.size
    assert store.delete(ANN, "b")
    assert (store.size, store.count) == (0, 0)


def test_what_was_dropped_counts_again_when_it_is_continued():
    store = ResponseStore()
    first = make("a")
    second = make("b", previous=first)
    store.add(first)
    store.add(second)
    store.delete(ANN, "b")
    store.delete(ANN, "a")

    third = make("c", previous=second)  # its request began before
    store.add(third)

    assert store.size == first.size + second.size + third.size


def test_a_conversation_longer_than_the_store_goes_as_a_whole():
    store = ResponseStore(limit_count=3)
    last = None
    for number in range(4):
        last = make(str(number), previous=last)
        store.add(last)

    assert ids(store, "0123") == []
    assert (store.size, store.count) == (0, 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "continue", "delete", "get"]),
        st.sampled_from([ANN, BOB, Owner(ANN.client, b"key")]),
        st.integers(0, 11),
        st.integers(0, 3000),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_bounds_hold_and_nothing_is_counted_twice(steps):
    store = ResponseStore(limit_bytes=12 * ONE, limit_count=6)
    made = []
    for number, (step, owner, which, size) in enumerate(steps):
        own = [each for each in made if each.owner == owner]
        chosen = own[which % len(own)] if own else None
        if step in {"add", "continue"}:
            previous = chosen if step == "continue" else None
            made.append(make(str(number), owner, size=size, previous=previous))
            store.add(made[-1])
        elif chosen is not None and step == "delete":
            store.delete(owner, chosen.id)
        elif chosen is not None:
            store.get(owner, chosen.id)
        kept = [each for each in made if store.get(each.owner, each.id) is each]
        needed = {turn.id: turn for each in kept for turn in each.turns()}
        assert store.size == sum(each.size for each in needed.values()) <= 12 * ONE
        assert store.count == len(needed) <= 6
