"""What is told of refusals and failed connections."""

import json
import socket
import time
from email.utils import formatdate

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from ollama_async.registry.errors import (
    MAX_TEXT_CHARACTERS,
    PermanentError,
    RegistryUnreachable,
    TransientError,
    describe_status,
    parse_retry_after,
    printable_line,
    translate_errors,
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
    assert describe_status(status, body) == expected


@given(st.text(), st.integers(1, 700))
def test_texts_are_one_printable_line_of_bounded_length(text, longest):
    line = printable_line(text, longest)
    assert line.isprintable()
    assert len(line) <= longest
    if text.isprintable() and text.split() == [text] and len(text) <= longest:
        assert line == text


@given(st.text())
def test_any_text_of_a_registry_gives_a_printable_error(text):
    for failure in (
        PermanentError(text),
        TransientError(json.dumps({"error": text}, ensure_ascii=False)),
    ):
        assert str(failure).isprintable()
        assert len(str(failure)) <= MAX_TEXT_CHARACTERS


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            RegistryUnreachable,
            "Name or service not",
        ),
        (OSError(104, "secret"), TransientError, "Connection reset by peer"),
        (aiohttp.ServerDisconnectedError("secret"), TransientError, "the connection was closed"),
        (aiohttp.ClientPayloadError("secret"), TransientError, "the response was cut off"),
        (aiohttp.InvalidURL("secret"), PermanentError, "invalid address"),
        (aiohttp.ClientError("secret"), TransientError, "no connection"),
        (TimeoutError(), TransientError, "no progress for too long"),
    ],
)
def test_errors_omit_the_library_s_quotations(error, kind, words):
    with (
        pytest.raises(kind, match=f'^Get "http://a/b": {words}') as raised,
        translate_errors("GET", URL("http://a/b?secret=1")),
    ):
        raise error
    assert "secret" not in str(raised.value)


def test_both_forms_of_retry_after():
    assert parse_retry_after("7") == 7
    assert 50 < parse_retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert parse_retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    for nonsense in ("", "-1", "soon", "²", "9" * 400, "nan"):
        assert parse_retry_after(nonsense) == 0
