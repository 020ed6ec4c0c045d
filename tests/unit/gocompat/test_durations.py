"""Durations read and print as Go's do; the expected texts were printed by Go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.gocompat import durations


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("5m", 300_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("+5s", 5_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("100ns", 100),
        ("1µs", 1_000),
        ("1us", 1_000),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
        ("2h0.5s1ms", 7_200_501_000_000),
    ],
)
def test_gos_durations_are_parsed(text, nanoseconds):
    assert durations.parse(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("300", 'time: missing unit in duration "300"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("3x", 'time: unknown unit "x" in duration "3x"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("s", 'time: invalid duration "s"'),
        ("1s2", 'time: missing unit in duration "1s2"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("99999999999h", 'time: invalid duration "99999999999h"'),
        ("1" * 5000 + "s", f'time: invalid duration "{"1" * 40}…"'),
        ("0.1ns" * 400_000, f'time: invalid duration "{"0.1ns" * 8}…"'),
    ],
)
def test_invalid_durations_have_gos_error_texts(text, error):
    with pytest.raises(ValueError, match="time: ") as caught:
        durations.parse(text)

    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1100, "1.1µs"),
        (45_600_000, "45.6ms"),
        (1_234_567_890, "1.23456789s"),
        (300_000_000_000, "5m0s"),
        (3_723_000_000_000, "1h2m3s"),
        (-1_500_000_000, "-1.5s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
    ],
)
def test_durations_print_as_in_go(nanoseconds, text):
    assert durations.show(nanoseconds) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_printed_durations_parse_back(nanoseconds):
    assert durations.parse(durations.show(nanoseconds)) == nanoseconds


@given(st.text(max_size=40))
def test_any_text_gives_a_duration_or_a_value_error(text):
    try:
        value = durations.parse(text)
    except ValueError:
        return
    assert -(2**63) <= value < 2**63
