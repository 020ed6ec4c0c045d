"""What a body may hold is counted in windows, and strings do not count."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import bounds
from ollama_async.api.bounds import NODES_LIMIT, VALUES_LIMIT, fits_one_call
from ollama_async.core import json_depth
from ollama_async.core.errors import BadRequest, TooLarge
from ollama_async.core.json_depth import MAX_DEPTH
from ollama_async.gocompat import json_scan

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(params=[6, 7, 8, 13, 64])
def small_window(request, monkeypatch):
    """At least as large as an escape."""
    for module in (bounds, json_depth, json_scan):
        monkeypatch.setattr(module, "WINDOW_BYTES", request.param)


@pytest.mark.parametrize(
    "text", ["", '"', "\\", '\\"', "\\\\", 'a"\\b\\\\"', "{[,:]}", "\n\t\x00", "é😀" * 9, "\\" * 9]
)
@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_outline_is_all_but_the_strings(text, ascii_only):
    value = [text, {text: [text, 1], "b": text}, text * 3]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()

    assert json_depth.outline(body) == _STRING.sub(b"", body)


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
def test_a_string_read_in_windows_is_the_one_that_was_written(text, ascii_only):
    for padding in range(7):
        written = "x" * padding + text * 3
        raw = json.dumps([written, {written: written}], ensure_ascii=ascii_only)
        clean = re.sub("[\ud800-\udfff]", "\ufffd", written)
        if not ascii_only:
            written = raw.encode(errors="surrogatepass")
            clean = re.sub("[\ud800-\udfff]", "\ufffd" * 3, json.loads(raw)[0])
            raw = written.decode(errors="surrogateescape")

        assert json_scan.scan(raw.encode(errors="surrogateescape")) == [clean, {clean: clean}]


@given(JSON)
def test_any_document_without_its_strings_is_as_a_simple_pattern_finds_it(value):
    body = json.dumps(value, ensure_ascii=False).encode()
    assert json_depth.outline(body) == _STRING.sub(b"", body)


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"a"]), max_size=40).map(b"".join))
def test_an_outline_of_rubbish_is_no_longer_than_it(body):
    assert len(json_depth.outline(body)) <= len(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * VALUES_LIMIT + b"1]",
        b"[" + b"[]," * NODES_LIMIT + b"1]",
        b"{" + b'"a":1,' * NODES_LIMIT + b'"a":1}',
        b"[" * (NODES_LIMIT + 1),
    ],
)
def test_a_crowd_of_values_is_refused(body):
    with pytest.raises(BadRequest, match="too many JSON values"):
        fits_one_call(body)


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b"[" + b"1," * 260_000 + b"1]", True),
        (b"[" + b"1," * 270_000 + b"1]", False),
        (b"[" + b"[]," * 32_000 + b"1]", True),
        (b"[" + b"[]," * 33_000 + b"1]", False),
        (b"{" + b'"a":1,' * 33_000 + b'"a":1}', False),
        (b'["' + b"{:" * 500_000 + b'"]', True),
        (b'["' + b"xy" * 1_100_000 + b'"]', False),
    ],
)
def test_one_call_decodes_only_so_much(body, fits):
    assert fits_one_call(body) == fits


def test_a_text_is_no_crowd_whatever_is_in_it():
    fits_one_call(json.dumps({"prompt": '{"a":[1,2]},\\' * NODES_LIMIT}).encode())


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_counted_outside_of_strings(levels):
    text = json.dumps("[{" * 1000)
    body = "[" * levels + text + "]" * levels

    assert json_depth.is_deep(body.encode()) == (levels > MAX_DEPTH)


def test_bytes_that_are_no_text_may_be_few(monkeypatch):
    monkeypatch.setattr(bounds, "FOREIGN_LIMIT_BYTES", 100)
    text = "中é😀" * 100

    bounds.check_text(text.encode() + b"\xff" * 100)
    with pytest.raises(BadRequest, match="not UTF-8"):
        bounds.check_text(b"\xff" * 101 + text.encode())


def test_a_string_that_one_call_should_not_work_on_is_refused(monkeypatch):
    monkeypatch.setattr(json_scan, "STRING_LIMIT_BYTES", 1000)
    monkeypatch.setattr(json_scan, "WINDOW_BYTES", 64)

    assert json_scan.scan(json.dumps(["x" * 900]).encode()) == ["x" * 900]
    with pytest.raises(TooLarge, match="limit of 1000 bytes"):
        json_scan.scan(json.dumps(["x" * 1100]).encode())
