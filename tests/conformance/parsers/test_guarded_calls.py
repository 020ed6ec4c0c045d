"""Calls as each template writes them are what the grammar of its calls allows."""

from types import SimpleNamespace

import pytest

from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.sequence import Utf8Decoder
from tests.conformance.parsers.round_trip import _CONTROL, answer
from tests.conformance.parsers.test_round_trip import ALL, cases, chat_format, in_order

END = 256


class Vocabulary:
    """A token for each byte, and one for each tag that a format wants to see."""

    def __init__(self, tags):
        self.tags = {tag: END + 1 + number for number, tag in enumerate(tags)}
        self.facts = SimpleNamespace(vocab_size=END + 1 + len(tags))

    def piece(self, token):
        return bytes([token]) if token < END else b""

    def is_end(self, token):
        return token == END

    @property
    def special(self):
        return {token: tag.encode() for tag, token in self.tags.items()}

    def tokens(self, text):
        """The text in tokens, each with its bytes."""
        while text:
            tag = max((tag for tag in self.tags if text.startswith(tag)), key=len, default="")
            if tag:
                yield self.tags[tag], tag.encode()
            else:
                yield from ((byte, bytes([byte])) for byte in text[0].encode())
            text = text[len(tag) or 1 :]


def guarded(chosen, given):
    """How many calls of an answer were held to the tools.

    :raises AssertionError: the guard would not have let the model write this.
    """
    vocabulary = Vocabulary([tag for tag in chosen.special_tokens if _CONTROL.fullmatch(tag)])
    tags = chosen.delimiters(given.prompt, given.rendered)
    grammars = ConstraintFactory(vocabulary)
    guard = grammars.guard(given.prompt.tools, tags, vocabulary.special)
    parser = chosen.start(given.prompt, given.rendered)
    if guard is None or parser is None:
        return 0
    characters, held, said = Utf8Decoder(), 0, ""
    guard.update(parser)
    for token, piece in vocabulary.tokens(given.text):
        text = characters.feed(piece)
        assert guard.allows(token), (said, text)
        was_free = guard.is_free
        guard.accept(token)
        said += text
        if text:
            parser.feed(text)
        if guard.is_free:
            guard.update(parser)
        held += was_free and not guard.is_free
    parser.finish()
    assert guard.is_free, said
    return held


UNGUARDED = {
    # an element for each value and each member of it, or types in tags: no simple grammar
    *("MiniMax-M3.jinja", "Kimi-K3.jinja"),
    # strings whose quotes are not escaped within them
    *("LFM2.5-8B-A1B.jinja", "lfm2", "lfm2-thinking"),
    # the call is a member of an object
    "go:nemotron",
}
"""Templates whose calls no grammar describes."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_guard_allows_what_the_template_writes(name):
    chosen = chat_format(name)
    for case, calls in cases(name):
        held = guarded(chosen, in_order(chosen, answer(chosen, calls)))
        assert bool(held) == (name not in UNGUARDED), case
