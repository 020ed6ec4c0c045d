"""What the demo model learns from a batch, and that nothing of an answer is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.batches import (
    HEARD_WEIGHT,
    LENGTHS,
    TOKENS,
    Encoded,
    batches,
    collate,
    drills,
    row_length,
)
from demo.batches import _weights as weights_of


def encoded(length, prompt):
    """Tokens 1, 2, … of which those behind the prompt are said."""
    weights = np.where(np.arange(length) >= prompt, 1, HEARD_WEIGHT).astype(np.float32)
    return Encoded(np.arange(1, length + 1, dtype=np.uint16), prompt, weights)


ROWS = st.lists(
    st.integers(2, 200).flatmap(
        lambda length: st.builds(
            encoded, st.just(length), st.integers(max(1, length - 20), length - 1)
        )
    ),
    min_size=1,
    max_size=8,
)


@given(ROWS)
def test_each_answer_token_is_learned_from_the_token_before_it(rows):
    batch = collate(rows, np.random.default_rng(0))
    length = batch.ids.shape[1]
    learned = {
        (position // length, position % length): target
        for position, target, weight in zip(
            batch.positions, batch.targets, batch.weights, strict=True
        )
        if weight == 1
    }
    wanted = {
        (number, at - 1): row.ids[at]
        for number, row in enumerate(rows)
        for at in range(row.prompt, len(row.ids))
    }
    assert learned == wanted


@given(ROWS)
def test_padding_is_never_learned(rows):
    batch = collate(rows, np.random.default_rng(0))
    length = batch.ids.shape[1]
    for position, weight in zip(batch.positions, batch.weights, strict=True):
        row, at = rows[position // length], position % length
        if at >= len(row.ids) - 1:
            assert weight == 0
        else:
            assert weight == (1 if at >= row.prompt - 1 else np.float32(HEARD_WEIGHT))


def test_a_batch_is_full_and_of_one_length():
    rng = np.random.default_rng(1)
    corpus = [encoded(size, 1) for size in rng.integers(2, 500, size=2000)]
    groups = batches(corpus, seed=1)
    assert groups
    for group in groups:
        lengths = {row_length(len(row.ids)) for row in group}
        assert len(lengths) == 1
        assert TOKENS <= len(group) * lengths.pop() < TOKENS + LENGTHS[-1]
    left = len(corpus) - sum(map(len, groups))
    assert 0 <= left < sum(TOKENS // length + 1 for length in LENGTHS)


def test_a_row_has_the_shortest_length_that_holds_it():
    assert [row_length(tokens) for tokens in (1, 64, 65, 2048)] == [64, 64, 96, 2048]
    with pytest.raises(StopIteration):
        row_length(2049)


def test_a_drill_is_the_same_tokens_in_another_order():
    for drill in drills(100, 50, seed=3):
        pieces, again = drill.ids[: drill.prompt], drill.ids[drill.prompt :]
        assert sorted(pieces) == sorted(again)
        assert drill.weights.tolist() == [0.0] * drill.prompt + [1.0] * len(again)


def test_earlier_turns_of_the_assistant_are_its_own_words_but_for_how_they_begin():
    speaks, end = [9, 8, 7], 5
    prompt = [9, 1, 5, 9, 8, 7, 3, 4, 5, 2, 9, 8, 7, 6, 5, 9, 8, 7, 1, 2]
    weights = weights_of(prompt, speaks, end)
    own = [token for token, weight in zip(prompt, weights, strict=True) if weight == 1]
    nothing = [at for at, weight in enumerate(weights) if weight == 0]
    assert own == [4, 5, 5]
    assert nothing == [6, 13, 18, 19], "two first tokens, and what the template has begun"
    assert np.isclose(weights, HEARD_WEIGHT).sum() == len(prompt) - 7
