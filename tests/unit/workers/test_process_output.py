"""What is kept of a worker's words, and how its end is put."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.process import TAIL_BYTES, OutputTail, exit_words


@pytest.fixture
def logged():
    return []


@pytest.fixture
def tail(logged):
    return OutputTail(logged.append)


def test_lines_are_forwarded_whole_and_without_control_characters(tail, logged):
    for part in (b"on", b"e\ntw\x1b[31mo\r\n\n", b"\xfft", b"hree"):
        tail.feed(part)
    assert logged == ["one", "tw [31mo"]
    tail.close()
    assert logged == ["one", "tw [31mo", "\N{REPLACEMENT CHARACTER}three"]


def test_a_line_without_end_is_forwarded_in_pieces_and_held_in_bounds(tail, logged):
    for _ in range(100):
        tail.feed(b"x" * 1000)
    tail.close()
    assert sum(map(len, logged)) == 100_000
    assert max(map(len, logged)) <= TAIL_BYTES + 1000
    assert len(tail._tail) == TAIL_BYTES


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", []),
        (b"one\ntwo\nthree\nfour\n", ["two", "three", "four"]),
        (b"load\nerror: no tensor\nfree\nCUDA failed\nbye\n", ["error: no tensor", "CUDA failed"]),
        (b"errors everywhere\n" + b"x" * TAIL_BYTES, ["x" * TAIL_BYTES]),
        (b"Traceback (most recent call last):\n  File error\nKeyError: 'a'\n", ["KeyError: 'a'"]),
    ],
)
def test_the_telling_lines_are_those_that_sound_like_a_failure(tail, output, expected):
    tail.feed(output)
    assert tail.telling_lines() == expected


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes_are_printable_in_the_end(parts):
    lines = []
    tail = OutputTail(lines.append)
    for part in parts:
        tail.feed(part)
    tail.close()
    assert all(ord(character) >= 32 or character == "\t" for line in lines for character in line)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-9, "killed by signal 9 (out of memory?)"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-63, "killed by signal 63 (unknown)"),
    ],
)
def test_an_end_is_put_in_words(returncode, words):
    assert exit_words(returncode) == words
