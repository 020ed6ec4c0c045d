"""Chat formats are made once for each configuration, and know this model's control tokens."""

from __future__ import annotations

import msgspec
import pytest

from ollama_async.core.conversation import ChatFormatSpec
from ollama_async.core.errors import TemplateFailed
from ollama_async.workers.child.prompt_encoder import CACHE_ENTRIES, TEMPLATE_LIMIT, ChatFormatCache


class ChatFormat:
    special_tokens = ("<call>", "<word>", "two tokens", "<end>")


class Engine:
    """``<call>`` and ``<end>`` are control tokens, ``<word>`` is a token with a text."""

    def __init__(self, facts):
        self.facts = facts

    def tokenize(self, text, *, add_special, parse_special):
        assert parse_special
        assert not add_special
        return {"<call>": [1], "<word>": [2], "<end>": [3]}.get(text, [4, 5])

    def piece(self, token):
        return b"" if token in {1, 3} else b"text"


@pytest.fixture
def made():
    """The configurations for which a chat format was made."""
    return []


@pytest.fixture
def get_or_make(fake_engine, made):
    def choose(spec, **_more):
        made.append(spec)
        return ChatFormat()

    cache = ChatFormatCache(Engine(fake_engine().facts), choose)
    return lambda spec: cache.get_or_make(spec, lambda action: action(), lambda: None)


def test_a_chat_format_is_made_once(get_or_make, made):
    one, other = ChatFormatSpec(template="a"), ChatFormatSpec(template="b")
    assert get_or_make(one) is get_or_make(msgspec.structs.replace(one))
    assert get_or_make(other) is not get_or_make(one)
    assert len(made) == 2


def test_only_the_latest_are_kept(get_or_make, made):
    first = ChatFormatSpec(template="first")
    get_or_make(first)
    for number in range(CACHE_ENTRIES - 1):
        get_or_make(ChatFormatSpec(template=str(number)))
    get_or_make(first)
    get_or_make(ChatFormatSpec(template="one more"))
    get_or_make(first)

    assert made.count(first) == 1
    get_or_make(ChatFormatSpec(template="0"))
    assert made.count(ChatFormatSpec(template="0")) == 2


def test_control_tokens_that_the_parser_reads_get_their_text(get_or_make, made):
    assert get_or_make(ChatFormatSpec()).special == {1: b"<call>", 3: b"<end>"}
    assert made


@pytest.mark.parametrize("field", ["template", "request_template"])
def test_a_template_that_is_too_long_is_not_compiled(get_or_make, made, field):
    with pytest.raises(TemplateFailed, match="longer than"):
        get_or_make(ChatFormatSpec(**{field: "x" * (TEMPLATE_LIMIT + 1)}))
    assert not made
