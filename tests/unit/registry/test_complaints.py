"""What is told of refusals and failed connections."""

import json
import socket

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from ollama_async.registry.errors import (
    LONGEST_TEXT,
    Refused,
    Transient,
    Unreachable,
    as_failures,
    printable,
    said,
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, b"", "403: Forbidden"),
        (403, b"secret", "403: Forbidden"),
        (403, b"[]", "403: Forbidden"),
        (403, b"{}", "403: Forbidden"),
        (403, b'{"errors": "secret"}', "403: Forbidden"),
        (403, b'{"errors": [{"code": ["secret"]}]}', "403: Forbidden"),
        (403, b"[" * 4000, "403: Forbidden"),
        (403, b'{"detail": "secret"}', "403: Forbidden"),
        (599, b"secret", "599"),
        (403, b'{"errors":[{"code":"DENIED"}]}', '403: {"errors": [{"code": "DENIED"}]}'),
        (
            400,
            b'{"errors":[{"code":"A","message":"b","detail":"secret"}],"secret":1}',
            '400: {"errors": [{"code": "A", "message": "b"}]}',
        ),
        (400, '{"error": "né"}'.encode(), '400: {"error": "né"}'),
    ],
)
def test_a_refusal_is_its_status_and_errors_in_the_form_of_registries(status, body, expected):
    assert said(status, body) == expected


@given(st.text(), st.integers(1, 700))
def test_texts_are_one_printable_line_of_bounded_length(text, longest):
    line = printable(text, longest)
    assert line.isprintable()
    assert len(line) <= longest
    if text.isprintable() and text.split() == [text] and len(text) <= longest:
        assert line == text


@given(st.text())
def test_whatever_a_registry_says_a_failure_can_be_printed(text):
    for failure in (Refused(text), Transient(json.dumps({"error": text}, ensure_ascii=False))):
        assert str(failure).isprintable()
        assert len(str(failure)) <= LONGEST_TEXT


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), Unreachable, "Name or service not"),
        (OSError(104, "secret"), Transient, "Connection reset by peer"),
        (aiohttp.ServerDisconnectedError("secret"), Transient, "the connection was closed"),
        (aiohttp.ClientPayloadError("secret"), Transient, "the answer broke off"),
        (aiohttp.InvalidURL("secret"), Refused, "no such address"),
        (aiohttp.ClientError("secret"), Transient, "no connection"),
        (TimeoutError(), Transient, "nothing moved for too long"),
    ],
)
def test_what_the_library_quotes_is_not_told(error, kind, words):
    with (
        pytest.raises(kind, match=f'^Get "http://a/b": {words}') as raised,
        as_failures("GET", URL("http://a/b?secret=1")),
    ):
        raise error
    assert "secret" not in str(raised.value)
