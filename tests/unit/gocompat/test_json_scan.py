"""The scanner reads what JSON writers write, in windows."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.errors import TooLarge
from ollama_async.gocompat import json_scan
from ollama_async.gocompat.json_scan import scan
from tests.json_values import JSON


@given(JSON)
def test_scanning_encoded_json_gives_the_value_back(value):
    assert scan(json.dumps(value).encode()) == value


@given(
    st.lists(st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False))
)
def test_long_arrays_of_numbers_are_read_as_written(values):
    for body in (json.dumps(values), json.dumps(values, indent=1)):
        assert scan(body.encode()) == values


@pytest.fixture(params=[6, 7, 8, 13, 64])
def small_window(request, monkeypatch):
    """At least as large as an escape."""
    monkeypatch.setattr(json_scan, "WINDOW_BYTES", request.param)


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "😀",
        "\\ud83d",
        "a\ud83d\U0001f600\ude00z",
        "éa" * 5,
        "\\\n/" * 7,
        "中文",
    ],
)
@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_string_read_in_windows_is_unchanged(text, ascii_only):
    for padding in range(7):
        written = "x" * padding + text * 3
        raw = json.dumps([written, {written: written}], ensure_ascii=ascii_only)
        clean = re.sub("[\ud800-\udfff]", "\ufffd", written)
        if not ascii_only:
            written = raw.encode(errors="surrogatepass")
            clean = re.sub("[\ud800-\udfff]", "\ufffd" * 3, json.loads(raw)[0])
            raw = written.decode(errors="surrogateescape")

        assert scan(raw.encode(errors="surrogateescape")) == [clean, {clean: clean}]


def test_a_string_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(json_scan, "STRING_LIMIT_BYTES", 1000)
    monkeypatch.setattr(json_scan, "WINDOW_BYTES", 64)

    assert scan(json.dumps(["x" * 900]).encode()) == ["x" * 900]
    with pytest.raises(TooLarge, match="limit of 1000 bytes"):
        scan(json.dumps(["x" * 1100]).encode())
