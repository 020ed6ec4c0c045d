"""What a body may hold is counted, and strings do not count."""

from __future__ import annotations

import json

import pytest

from ollama_async.api import decode
from ollama_async.api.decode import NODES_LIMIT, VALUES_LIMIT, fits_one_call
from ollama_async.core.errors import BadRequest


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * VALUES_LIMIT + b"1]",
        b"[" + b"[]," * NODES_LIMIT + b"1]",
        b"{" + b'"a":1,' * NODES_LIMIT + b'"a":1}',
        b"[" * (NODES_LIMIT + 1),
    ],
)
def test_too_many_values_are_refused(body):
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
def test_one_call_decodes_a_bounded_amount(body, fits):
    assert fits_one_call(body) == fits


def test_brackets_and_commas_in_a_text_do_not_count_as_values():
    fits_one_call(json.dumps({"prompt": '{"a":[1,2]},\\' * NODES_LIMIT}).encode())


def test_invalid_utf8_is_bounded(monkeypatch):
    monkeypatch.setattr(decode, "INVALID_LIMIT_BYTES", 100)
    text = "中é😀" * 100

    decode._check_text(text.encode() + b"\xff" * 100)
    with pytest.raises(BadRequest, match="not UTF-8"):
        decode._check_text(b"\xff" * 101 + text.encode())
