"""``WWW-Authenticate`` headers of registries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.registry.auth import BearerChallenge


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t"', BearerChallenge("https://a/t")),
        ('bearer realm=https://a/t,scope="x y"', BearerChallenge("https://a/t", scope="x y")),
        (
            'Bearer realm="https://a/t", service="s, t" , scope="r:x:pull", error="invalid"',
            BearerChallenge("https://a/t", "s, t", "r:x:pull"),
        ),
        (r'Bearer realm="a\"b"', BearerChallenge('a"b')),
        ('Bearer realm="a",realm="b"', BearerChallenge("a")),
        ('Basic realm="a"', None),
        ("Bearer", None),
        ("", None),
        ('Bearer service="s"', None),
        ("Bearer realm=" + "x" * 9000, None),
    ],
)
def test_challenges(header, expected):
    assert BearerChallenge.parse(header) == expected


@given(st.text() | st.text('Bearer realm="=,\\').map(lambda text: "Bearer " + text))
def test_any_challenge_is_read_or_not(header):
    challenge = BearerChallenge.parse(header)
    assert challenge is None or challenge.realm


plain = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1)


@given(plain, plain, plain)
def test_a_challenge_is_read_as_it_was_written(realm, service, scope):
    def quoted(text):
        return text.replace("\\", "\\\\").replace('"', '\\"')

    header = f'Bearer realm="{quoted(realm)}",service="{quoted(service)}",scope="{quoted(scope)}"'
    assert BearerChallenge.parse(header) == BearerChallenge(realm, service, scope)


def test_where_a_token_is_asked_for():
    challenge = BearerChallenge("https://u:p@a/t?x=1#y", "s", "one two")
    assert str(challenge.url()) == "https://a/t?x=1&service=s&scope=one&scope=two"
    for realm in ("file:///x", "a", "https://", "http://[::1"):
        with pytest.raises(ValueError, match=r"."):
            BearerChallenge(realm).url()
