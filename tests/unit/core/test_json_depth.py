"""Depth is counted outside of strings, and texts are looked at in windows."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core import json_depth
from ollama_async.core.json_depth import MAX_DEPTH, is_deep, is_deep_value

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(params=[6, 7, 8, 13, 64])
def small_window(request, monkeypatch):
    """At least as large as an escape."""
    monkeypatch.setattr(json_depth, "WINDOW_BYTES", request.param)


@pytest.mark.parametrize(
    "text", ["", '"', "\\", '\\"', "\\\\", 'a"\\b\\\\"', "{[,:]}", "\n\t\x00", "é😀" * 9, "\\" * 9]
)
@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_outline_has_everything_but_the_strings(text, ascii_only):
    value = [text, {text: [text, 1], "b": text}, text * 3]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()

    assert json_depth.outline(body) == _STRING.sub(b"", body)


@given(JSON)
def test_an_outline_equals_that_of_a_simple_pattern(value):
    body = json.dumps(value, ensure_ascii=False).encode()
    assert json_depth.outline(body) == _STRING.sub(b"", body)


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"a"]), max_size=40).map(b"".join))
def test_an_outline_of_invalid_json_is_not_longer(body):
    assert len(json_depth.outline(body)) <= len(body)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_counted_outside_of_strings(levels):
    text = json.dumps("[{" * 1000)
    body = "[" * levels + text + "]" * levels

    assert is_deep(body.encode()) == (levels > MAX_DEPTH)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": 1, "b": inner}])
def test_values_may_be_as_deep_as_the_limit(wrap):
    value: object = "x"
    for _ in range(5):
        value = wrap(value)

    assert not is_deep_value(value, 5)
    assert is_deep_value(value, 4)
