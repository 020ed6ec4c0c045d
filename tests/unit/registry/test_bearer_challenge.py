"""``WWW-Authenticate`` headers of registries."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.registry.auth import parse_challenge, token_url


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t"', {"realm": "https://a/t"}),
        ('bearer realm=https://a/t,scope="x y"', {"realm": "https://a/t", "scope": "x y"}),
        (
            'Bearer realm="https://a/t", service="s, t" , scope="r:x:pull", error="invalid"',
            {"realm": "https://a/t", "service": "s, t", "scope": "r:x:pull", "error": "invalid"},
        ),
        (r'Bearer realm="a\"b"', {"realm": 'a"b'}),
        ('Bearer realm="a",realm="b"', {"realm": "a"}),
        ('Basic realm="a"', {}),
        ("Bearer", {}),
        ("", {}),
        ('Bearer service="s"', {"service": "s"}),
        ("Bearer realm=" + "x" * 9000, {}),
    ],
)
def test_parsed_challenges(header, expected):
    assert parse_challenge(header) == expected


@given(st.text() | st.text('Bearer realm="=,\\').map(lambda text: "Bearer " + text))
def test_any_challenge_gives_a_url_or_a_value_error(header):
    with contextlib.suppress(ValueError):
        assert token_url(parse_challenge(header)).host


plain = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1)


@given(plain, plain, plain)
def test_a_challenge_is_parsed_as_it_was_written(realm, service, scope):
    def quoted(text):
        return text.replace("\\", "\\\\").replace('"', '\\"')

    header = f'Bearer realm="{quoted(realm)}",service="{quoted(service)}",scope="{quoted(scope)}"'
    assert parse_challenge(header) == {"realm": realm, "service": service, "scope": scope}


def test_the_url_that_issues_tokens():
    challenge = {"realm": "https://u:p@a/t?x=1#y", "service": "s", "scope": "one two"}
    assert str(token_url(challenge)) == "https://a/t?x=1&service=s&scope=one&scope=two"
    for realm in ("file:///x", "a", "https://", "http://[::1", ""):
        with pytest.raises(ValueError, match=r"."):
            token_url({"realm": realm})
