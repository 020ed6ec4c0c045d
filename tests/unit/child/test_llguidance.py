"""The binding to llguidance: threads, struct layouts, unusual vocabularies."""

import sys
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.grammar import llguidance
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from tests.unit.child.constraint_harness import END, OPEN, ByteEngine, constrain, walk


class Large(ByteEngine):
    """So many tokens that copying them takes a while."""

    facts = SimpleNamespace(vocab_size=50_000)

    def piece(self, token):
        return b"%x" % token

    def is_end(self, token):
        return token == END


def test_while_the_library_copies_a_vocabulary_other_threads_run():
    """Unless it lets go of the interpreter's lock, no other thread gets it in so short a time."""
    went_on, is_over = [], threading.Event()

    def tick():
        while not is_over.is_set():
            went_on.append(time.sleep(0))

    large = Large()
    interval_s = sys.getswitchinterval()
    other = threading.Thread(target=tick)
    other.start()
    try:
        sys.setswitchinterval(60)
        before = len(went_on)
        llguidance.GrammarTokenizer(large.facts.vocab_size, large.piece, large.is_end)
        assert len(went_on) > before
    finally:
        sys.setswitchinterval(interval_s)
        is_over.set()
        other.join()


def test_the_layouts_are_those_of_the_installed_library():
    init = llguidance.ConstraintInit()
    llguidance.set_defaults(init, None)

    assert (init.log_buffer_level, init.log_stderr_level) == (0, 1)
    assert (init.max_items_in_row, init.step_max_items) == (2_000, 50_000)
    assert (init.initial_lexer_fuel, init.step_lexer_fuel) == (1_000_000, 200_000)
    assert (init.max_lexer_states, init.max_grammar_size) == (250_000, 500_000)
    assert (init.precompute_large_lexemes, init.verbose_errors) == (True, True)
    assert not any(init.reserved)


class Ends(ByteEngine):
    """With more than one way to end."""

    def is_end(self, token):
        return token in {END, OPEN}


def test_a_model_may_end_with_any_of_its_ends():
    inference = Inference(Prompt(), Sampling(), format={"type": "integer"})
    constraint = ConstraintFactory(Ends()).constrain(inference, "", Delimiters(), {})
    assert not constraint.allows(OPEN)

    constraint.accept(ord("1"))
    assert {END, OPEN} <= set(constraint.allowed().tolist())
    constraint.accept(OPEN)
    assert constraint.is_over
    assert not constraint.failure


class Endless(ByteEngine):
    def is_end(self, _token):
        return False


def test_a_model_without_an_end_token_still_answers_in_the_form():
    inference = Inference(Prompt(), Sampling(), format={"const": 1})
    constraint = ConstraintFactory(Endless()).constrain(inference, "", Delimiters(), {})

    constraint.accept(ord("1"))
    assert constraint.is_over
    assert not constraint.failure


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["household", "business"]},
        "tags": {"type": "array", "items": {"const": "x"}},
    },
    "required": ["name", "kind", "tags"],
    "additionalProperties": False,
}


class Words(ByteEngine):
    """With tokens of several letters, and of marks."""

    facts = SimpleNamespace(vocab_size=272)
    words = dict(enumerate([b' "', b'":', b"name", b"na", b'"name', b'",', b'{"', b"kind"], 261))

    def piece(self, token):
        return self.words.get(token) or super().piece(token)


WORDS = ConstraintFactory(Words())


def constrain_words(form):
    return WORDS.constrain(Inference(Prompt(), Sampling(), format=form), "", Delimiters(), {})


@pytest.mark.parametrize(
    ("written", "forced"),
    [
        (b"", [b'{"', b"name", b'":']),
        (b'{"', [b"name", b'":']),
        (b'{"na', [b"m", b"e", b'":']),
        (b'{"name":', []),  # an empty text, or not
        (b'{"name": "a"', [b",", b' "', b"kind"]),
        (b'{"name": "a', []),  # anything may follow
        (b'{"name": "a",', [b' "', b"kind", b'":']),
        (b'{"name": "a","kind":"', []),  # one of two words
        (b'{"name": "a","kind":"h', [b"o", b"u", b"s"]),
        (b'{"name": "a","kind":"household","tags":[', []),  # empty or not
    ],
)
def test_what_must_come_next_is_known(written, forced):
    constraint = constrain_words(PERSON)
    for byte in written:
        constraint.accept(byte)
    assert [Words().piece(token) for token in constraint.forced(3)] == forced


@pytest.mark.parametrize("form", [PERSON, {"type": "integer"}, "json", {"const": [1, {"a": None}]}])
@given(seed=st.integers(0, 1 << 20))
def test_a_forced_text_is_allowed_and_asking_for_it_changes_nothing(form, seed):
    asked, other = constrain_words(form), constrain_words(form)
    for byte in walk(constrain(form), seed, patience=20):
        forced = asked.forced(15)
        assert asked.allowed().tolist() == other.allowed().tolist()
        ahead = other.copy()
        for token in forced:
            assert not ahead.is_over
            assert ahead.allows(token)
            ahead.accept(token)
        assert not ahead.failure
        asked.accept(byte)
        other.accept(byte)


def test_when_it_takes_long_forced_texts_are_sought_less_often(monkeypatch):
    constraint = constrain_words(PERSON)
    monkeypatch.setattr(llguidance, "_FORCED_S", -1.0)
    found = [bool(constraint.forced(3)) for _ in range(100)]
    assert found.count(True) == 4
