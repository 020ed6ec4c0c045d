"""Sizes, times, tables and statistics with Ollama's texts."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.cli.formatting import (
    format_age,
    format_expiry,
    format_processor,
    format_size,
    format_span,
    format_statistics,
    format_table,
)

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOUR = 3600
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1_300_000_000, "1.3 GB"),
        (4_000_000_000, "4 GB"),
        (637_699_456, "637 MB"),
        (9_960_000, "10.0 MB"),
        (42_999_999_999, "42 GB"),
        (1_500_000_000_000, "1.5 TB"),
    ],
)
def test_sizes_are_decimal_with_one_digit_below_ten(count, text):
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1.9, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_spans_of_time_have_the_words_of_ollama(seconds, text):
    assert format_span(seconds) == text


def test_moments_are_relative_to_now():
    assert format_age("2025-06-01T11:00:00Z", NOW) == "About an hour ago"
    assert format_age("2025-06-01T14:00:00+02:00", NOW) == "Less than a second ago"
    assert format_age("2025-06-01T12:04:59.123456789Z", NOW) == "4 minutes from now"
    assert format_age("2317-06-01T12:00:00Z", NOW) == "Forever"
    assert format_age("0001-01-01T00:00:00Z", NOW) == "Never"
    assert format_expiry("2025-06-01T11:59:59Z", NOW) == "Stopping..."
    assert format_expiry("0001-01-01T00:00:00Z", NOW) == "Never"
    assert format_expiry("2025-06-01T12:05:00Z", NOW) == "5 minutes from now"


@given(st.integers(1, 19 * 365 * DAY))
def test_every_moment_has_words(seconds):
    moment = (NOW - timedelta(seconds=seconds)).isoformat()
    assert re.fullmatch(r"(About an? \w+|\d+ \w+) ago", format_age(moment, NOW))


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [
        (100, 0, "100% CPU"),
        (0, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 101, "Unknown"),
        (100, 52, "48%/52% CPU/GPU"),
        (1000, 995, "1%/99% CPU/GPU"),
    ],
)
def test_processors_are_shown_as_percentages(size, vram, text):
    assert format_processor(size, vram) == text


def test_a_table_is_padded_to_the_last_column():
    text = format_table([("NAME", "ID"), ("a", "123456")])
    assert text == "NAME    ID        \na       123456    \n"
    assert format_table([("NAME",)]) == "NAME    \n"


def test_statistics_leave_zero_values_out():
    last = {
        "total_duration": 1_234_567_890,
        "load_duration": 45_600_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 130_000_000,
        "eval_count": 298,
        "eval_duration": 4_700_000_000,
    }
    assert format_statistics(last) == (
        "total duration:       1.23456789s\n"
        "load duration:        45.6ms\n"
        "prompt eval count:    26 token(s)\n"
        "prompt eval duration: 130ms\n"
        "prompt eval rate:     200.00 tokens/s\n"
        "eval count:           298 token(s)\n"
        "eval duration:        4.7s\n"
        "eval rate:            63.40 tokens/s\n"
    )
    assert format_statistics({"eval_count": 3, "load_duration": 0}) == (
        "eval count:           3 token(s)\n"
    )
