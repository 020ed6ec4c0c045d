"""ChatFormatCache are made once for each way of speaking, and know this model's control tokens."""

from __future__ import annotations

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
    """The speeches for which a chat_format was made."""
    return []


@pytest.fixture
def harness(fake_engine, made):
    def choose(spec, **_more):
        made.append(spec)
        return ChatFormat()

    return ChatFormatCache(Engine(fake_engine().facts), choose)


def test_a_chat_format_is_made_once(harness, made):
    assert harness.get_or_make(ChatFormatSpec(template="a")) is harness.get_or_make(
        ChatFormatSpec(template="a")
    )
    assert harness.get_or_make(ChatFormatSpec(template="b")) is not harness.get_or_make(
        ChatFormatSpec(template="a")
    )
    assert len(made) == 2


def test_only_the_latest_are_kept(harness, made):
    first = ChatFormatSpec(template="first")
    harness.get_or_make(first)
    for number in range(CACHE_ENTRIES - 1):
        harness.get_or_make(ChatFormatSpec(template=str(number)))
    harness.get_or_make(first)
    harness.get_or_make(ChatFormatSpec(template="one more"))
    harness.get_or_make(first)

    assert made.count(first) == 1
    harness.get_or_make(ChatFormatSpec(template="0"))
    assert made.count(ChatFormatSpec(template="0")) == 2


def test_control_tokens_that_the_parser_wants_get_their_text(harness, made):
    assert harness.get_or_make(ChatFormatSpec()).special == {1: b"<call>", 3: b"<end>"}
    assert made


@pytest.mark.parametrize("field", ["template", "request_template"])
def test_an_endless_template_is_not_even_looked_at(harness, made, field):
    with pytest.raises(TemplateFailed, match="longer than"):
        harness.get_or_make(ChatFormatSpec(**{field: "x" * (TEMPLATE_LIMIT + 1)}))
    assert not made
