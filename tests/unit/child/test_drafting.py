"""Which drafts a step gets: what is guessed, and how many are worth it."""

import random
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.drafting import (
    INDEX_TOKENS,
    DraftCosts,
    NgramIndex,
    PromptLookup,
    StreamDrafts,
)
from ollama_async.workers.child.engines.engine import MAX_DRAFTS


def guess_after(tokens, most=4):
    found = StreamDrafts().guess(tokens[:-1], tokens[-1], most)
    return found.tokens if found else []


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 1, 2, 3], [4, 5, 6, 7]),
        ([1, 2, 3, 8, 1, 2, 3, 9, 0, 0, 1, 2, 3], [9, 0, 0, 1]),  # the latest
        ([5, 1, 2, 3, 8, 6, 1, 2, 3, 9, 5, 1, 2, 3], [8, 6, 1, 2]),  # the longest
        ([7, 7, 7, 7], [7, 7, 7, 7]),
        ([1, 2, 1, 2, 1, 2], [1, 2, 1, 2]),  # as it goes on repeating itself
        ([1, 2, 3, 4, -1, -1, 5, 1, 2, 3], [4]),  # an image is no guess
        ([1, 2, 3, -1, 5, 1, 2, 3], []),
        ([1, 2, 3, 4, 2, 3], []),
        ([1, 2], []),
        ([1], []),
    ],
)
def test_what_followed_the_same_tokens_is_the_guess(text, guess):
    assert guess_after(text) == guess


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 20))
def test_a_guess_follows_the_longest_match_that_was_looked_at(text, most):
    guess = guess_after(text, most)
    assert len(guess) <= min(most, MAX_DRAFTS)
    if guess:
        ends = [at for at in range(3, len(text)) if text[at - 3 : at] == text[-3:]]
        assert any(text[at : at + len(guess)] == guess[: len(text) - at] for at in ends)


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(1, 30), max_size=6))
def test_an_index_that_grew_is_the_one_of_the_whole(text, parts):
    grown, whole, end = NgramIndex(), NgramIndex(), 0
    for part in parts:
        end += part
        grown.extend(text[:end])
    grown.extend(text)
    whole.extend(text)
    assert grown.find(text, 1) == whole.find(text, 1)


def test_a_long_prompt_is_indexed_in_parts():
    text = [*range(INDEX_TOKENS * 2), 1, 2]
    stream = StreamDrafts()
    found = [stream.guess(text, 3, 4) for _ in range(4)]
    assert [guess is None for guess in found] == [True, True, False, False]
    assert found[-1].tokens == [4, 5, 6, 7]


def test_a_stream_learns_from_guesses_whether_or_not_they_were_drafted():
    stream = StreamDrafts()
    passage = list(range(10))
    text, last = passage * 2, 0
    for token in [*passage[1:], *passage]:
        stream.guess(text, last, 4)
        text, last = [*text, last], token
    right = max(stream.hits)
    for token in range(100, 200):
        stream.guess(text, last, 4)
        text, last = [*text, last], token if token % 4 else 0
    assert right > 0.95


def test_after_a_context_shift_a_stream_begins_again():
    stream = StreamDrafts()
    stream.guess([*range(40)], 40, 4)
    text = [*range(5), *range(30, 40), 40, 2, 3]
    assert stream.guess(text, 4, 2).tokens == [30, 31]


def cheap(rows):
    return 1 + 0.13 * (rows - 1)


def expensive(rows):
    return 1 + 0.97 * (rows - 1)


def decode(machine, *hits, steps=3000):
    """How many times as many tokens a second as without drafts come if guesses are right with these
    probabilities, one for each stream; and the drafts of each step. ``machine`` gives the time of a
    step by its rows.
    """
    chance, lookup = random.Random(1), PromptLookup(is_invariant=True)
    took, tokens, all_counts = 0.0, 0, []
    for _ in range(steps):
        counts = lookup.choose([([0] * MAX_DRAFTS if rate else [], rate) for rate in hits])
        accepted = 0
        for count, rate in zip(counts, hits, strict=True):
            accepted += sum(1 for _ in takewhile(lambda _at: chance.random() < rate, range(count)))  # noqa: B023
        step = machine(len(hits) + sum(counts)) / machine(len(hits)) * chance.uniform(0.93, 1.07)
        lookup.observe(len(hits), sum(counts), accepted, step)
        took += step
        tokens += len(hits) + accepted
        all_counts.append(counts)
    return tokens / took / len(hits), all_counts


def test_before_a_step_was_measured_nothing_is_drafted():
    assert PromptLookup(is_invariant=True).choose([([1, 2, 3], 1.0)]) == [0]


def test_where_rows_are_cheap_the_better_guesses_are_the_more_are_drafted():
    results = [decode(cheap, rate) for rate in (0.05, 0.3, 0.6, 0.95)]
    gains = [gain for gain, _ in results]
    assert gains[0] > 0.99
    assert gains[1] > 1.1
    assert gains[3] > 3
    counts = [sum(count for (count,) in drafted) for _, drafted in results]
    assert all(less < more for less, more in pairwise(counts))


@pytest.mark.parametrize("rate", [0.3, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("streams", [1, 3])
def test_where_rows_are_expensive_little_is_lost_and_it_is_tried_again(rate, streams):
    gain, drafted = decode(expensive, *[rate] * streams)
    assert gain > 0.98
    assert rate < 0.5 or any(map(any, drafted[500:]))


def test_the_better_guess_gets_the_drafts():
    _, drafted = decode(cheap, 0.3, 0.95)
    worse, better = map(sum, zip(*drafted, strict=True))
    assert better > 3 * worse


def test_streams_without_drafts_are_not_slowed_down_without_measure():
    _, drafted = decode(cheap, 0, 0.99)
    drafts = [count for _, count in drafted]
    assert 3 < sum(drafts) / len(drafts) < 6


def test_a_step_without_drafts_is_measured_now_and_then():
    _, drafted = decode(cheap, 0.98)
    assert 20 < sum(not count for (count,) in drafted) < 200


def test_a_pause_of_the_machine_does_not_end_it_for_long():
    pauses = iter([1.0] * 50 + [100.0])
    _, drafted = decode(lambda rows: cheap(rows) * (next(pauses, 1.0) if rows > 1 else 1), 0.95)
    assert sum(map(any, drafted[1500:1600])) > 95


def test_a_clock_that_stands_still_does_no_harm():
    costs = DraftCosts()
    costs.observe(1, 0, 0.0)
    costs.observe(1, 1, 0.0)
    assert costs.relative(1, 1) >= 1
