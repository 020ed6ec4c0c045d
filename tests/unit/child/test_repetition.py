"""Which answers repeat themselves without end, and which only look like it."""

from array import array
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.sequence import (
    CHECK_PERIOD,
    REPEATS,
    RepetitionDetector,
    find_period,
)

LIMIT = 2048


def tokens(text):
    """One token a character: no vocabulary cuts text finer, so none finds a repetition sooner."""
    return array("i", map(ord, text))


REAL_TEXTS = {
    "a table of empty cells": "|   |   |   |   |   |\n" * 40,
    "the rule of a wide table": "|" + "-----|" * 40 + "\n",
    "rules of dashes": ("-" * 80 + "\nchapter\n" + "=" * 80 + "\n") * 10,
    "a picture in characters": "\n".join("." * (40 - n) + "#" * (2 * n) for n in range(30)),
    "a matrix of zeros": "[" + "0, " * 600 + "0]",
    "nested brackets": "[" * 1000 + "]" * 1000,
    "a sentence a hundred times": "I will not talk in class.\n" * 75,
    "a hex dump": "\n".join(f"{n:08x}  " + "00 " * 16 for n in range(0, 4096, 16)),
    "numbered lines": "\n".join(f"{n}. The same again." for n in range(1000)),
    "code with one case after the other": "".join(
        f"    case {n}:\n        return {n};\n" for n in range(200)
    ),
    "equal rows between others": ("0,0,0,0\n" * 100 + "1,0,0,0\n") * 5,
}


@pytest.mark.parametrize("name", REAL_TEXTS)
def test_real_texts_are_not_cut(name):
    answer = tokens(REAL_TEXTS[name])

    assert not any(find_period(answer[:end], LIMIT) for end in range(0, len(answer), 7))


@given(
    before=st.lists(st.integers(0, 5), max_size=300),
    passage=st.lists(st.integers(0, 5), min_size=1, max_size=60),
)
def test_the_passage_is_found_wherever_it_begins(before, passage):
    watch = RepetitionDetector(LIMIT)
    answer = list(chain(before, *repeat(passage, 40 + 2 * LIMIT // len(passage))))
    found = end = 0
    for end, token in enumerate(answer, start=1):
        watch.add(token)
        found = 0 if end % CHECK_PERIOD else watch.check()
        if found:
            break

    assert 0 < found <= len(passage)
    assert answer[end - found : end] == answer[end - 2 * found : end - found]


@given(st.lists(st.integers(0, 2), max_size=400), st.integers(1, 300))
def test_what_is_found_is_a_repetition_of_that_length(answer, limit):
    found = find_period(array("i", answer), limit)

    if found:
        size = max(limit, REPEATS * found)
        assert answer[-size:-found] == answer[found - size :]


def test_bytes_of_neighbouring_tokens_are_no_passage():
    # in bytes, not in tokens, the second half of one and the first of the next look alike
    answer = array("i", [0x00010000, 0x00000001] * 1200 + [0x00010000])

    assert find_period(answer, LIMIT) == 2
