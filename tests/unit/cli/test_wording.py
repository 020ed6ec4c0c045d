import io
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import get_character_cell_size

from ollama_async.cli.answer_printer import MARGIN, AnswerPrinter, WordWrapper, print_answer
from ollama_async.cli.client import CommandFailed
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
def test_a_processor_is_a_share(size, vram, text):
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


def screen(written: str) -> list[str]:
    """What a terminal shows: we write only text, line ends, and 'back' + 'erase to the end'."""
    rows = [""]
    for back, erase, text in re.findall(r"\x1b\[(\d+)D|(\x1b\[K)|([^\x1b])", written, re.DOTALL):
        if back:
            cells = int(back)
            while cells > 0:
                cells -= get_character_cell_size(rows[-1][-1])
                rows[-1] = rows[-1][:-1]
        elif text == "\n":
            rows.append("")
        elif not erase:
            rows[-1] += text
    return rows


def test_a_word_that_crosses_the_edge_moves_to_the_next_line():
    wrapper = WordWrapper(10 + MARGIN)
    written = "".join(map(wrapper.feed, ["The quick", " brown fo", "x jumps"]))
    assert screen(written) == ["The quick ", "brown fox ", "jumps"]


TEXT = st.text(st.sampled_from("ab é\u6f22 \n\u0301"), max_size=80)


@given(TEXT, st.integers(6, 30), st.lists(st.integers(0, 80), max_size=5))
def test_wrapping_keeps_the_text_and_the_margin_however_it_arrives(text, columns, cuts):
    wrapper = WordWrapper(columns)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    rows = screen("".join(map(wrapper.feed, pieces)))
    limit = max(columns - MARGIN, 2)
    assert all(sum(map(get_character_cell_size, row)) <= limit for row in rows)
    assert re.sub(r"\s", "", "".join(rows)) == re.sub(r"\s", "", text)


def test_thinking_is_set_apart():
    stream = io.StringIO()
    printer = AnswerPrinter(wrap=True, hide_thinking=False, stream=stream)
    objects = [{"response": "", "thinking": "hm"}, {"response": "yes"}, {"done": True}]
    assert print_answer(objects, printer) == {"done": True}
    assert stream.getvalue() == "Thinking...\nhm\n...done thinking.\n\nyes"
    assert (printer.content, printer.thinking) == ("yes", "hm")


def test_the_end_of_the_grey_takes_no_room_on_the_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    row = "a row that just fits"
    monkeypatch.setenv("COLUMNS", str(MARGIN + len(row)))
    stream = Terminal()
    printer = AnswerPrinter(wrap=True, hide_thinking=False, stream=stream)
    printer.add("", "hm")
    printer.add(row, "")
    assert stream.getvalue() == f"\x1b[90mThinking...\nhm\n...done thinking.\n\n\x1b[0m{row}"


def test_thinking_can_be_hidden():
    stream = io.StringIO()
    message = {"content": "yes", "thinking": "hm"}
    printer = AnswerPrinter(wrap=True, hide_thinking=True, stream=stream)
    print_answer([{"message": message, "done": True}], printer)
    assert stream.getvalue() == "yes"


def test_an_answer_that_breaks_off_is_an_error():
    printer = AnswerPrinter(wrap=False, hide_thinking=False, stream=io.StringIO())
    with pytest.raises(CommandFailed, match="cut off"):
        print_answer([{"response": "ye"}], printer)
