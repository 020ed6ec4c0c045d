"""Untrusted text on terminals and in logs."""

import io
import logging
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.app import _LogFormat
from ollama_async.core.errors import BadRequest, from_code
from ollama_async.core.safe_text import escape_line, escape_text

ANY = st.text(st.characters(codec="utf-8") | st.sampled_from("\x00\x07\x1b\x7f\x9b\x9d\r\n\t"))


@given(ANY)
def test_no_control_character_is_left(text):
    assert {c for c in escape_text(text) if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}
    assert not [c for c in escape_line(text) if unicodedata.category(c) == "Cc"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_other_characters_are_kept(text):
    assert escape_text(text) == escape_line(text) == text


def test_control_characters_are_escaped():
    assert escape_text("a\x1b[2J\x9b0m\x7f\n\tb\r\nc") == "a\\x1b[2J\\x9b0m\\x7f\n\tb\nc"
    assert escape_line("a\x1b]52;c;eA==\x07\r\n\tb") == "a\\x1b]52;c;eA==\\x07\\r\\n\\tb"


def test_errors_have_no_control_characters():
    for error in (BadRequest("\x1b[31mred\n"), from_code("load_failed", "\x1b[31mred\n")):
        assert error.message == str(error) == "\\x1b[31mred\n"


def fail_with(text):
    raise ValueError(text)


def test_a_log_entry_is_one_line_and_a_traceback_keeps_its_own():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_LogFormat())
    try:
        fail_with("\x1b]0;title\x07\x9b2J")
    except ValueError:
        record = logging.LogRecord(
            "n", logging.INFO, "f", 1, "%s", ("a\n2026 INFO forged\x1b[1A",), sys.exc_info()
        )
    handler.emit(record)
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("n: a\\n2026 INFO forged\\x1b[1A")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: \\x1b]0;title\\x07\\x9b2J"
