"""The scripted engine as an embedding model."""

import struct

import pytest

from ollama_async.core.scripted_models import Script
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.engines.scripted_embedding import ScriptedEmbedding
from ollama_async.workers.load_spec import LoadSpec

SPEC = LoadSpec(engine="scripted", model="m", num_ctx=64, slots=4, batch_size=128)


def never():
    return False


def engine(**script):
    return ScriptedEmbedding(Script(**script), SPEC)


def results(loaded, *texts):
    inputs = [loaded.tokenize(text, add_special=True, parse_special=True) for text in texts]
    return [struct.unpack(f"<{len(data) // 4}f", data) for data in loaded.embed(inputs, never)]


def test_vectors_follow_from_the_bytes():
    one, other, again = results(engine(dimensions=6), "a\u00e9", "\u00e9a", "a\u00e9")
    assert len(one) == 6
    assert one == again != other


@pytest.mark.parametrize(
    ("query", "document", "score"),
    [
        ("red fox", "The fox is red", 1.0),
        ("red fox", "a fox", 0.5),
        ("red fox", "", 0.0),
        ("", "x", 0.0),
    ],
)
def test_a_score_is_the_share_of_the_words_of_the_query(query, document, score):
    loaded = engine(ranks=True)
    pair = loaded.facts.pair_format
    tokens = [*pair.front, *query.encode(), *pair.between, *document.encode(), *pair.end]
    assert struct.unpack("<f", loaded.embed([tokens], never)[0]) == (score,)


def test_the_slots_and_the_context_are_the_scripts_or_the_plans():
    facts = engine(dimensions=6, slots=2, num_ctx=16).facts
    assert (facts.slots, facts.num_ctx) == (2, 16)
    facts = engine(dimensions=6).facts
    assert (facts.slots, facts.num_ctx, facts.batch_tokens) == (4, 64, 128)


def test_a_slow_batch_ends_if_nobody_waits_for_it():
    loaded = engine(dimensions=6, prompt_tokens_per_second=1)
    with pytest.raises(EngineError):
        loaded.embed([[1] * 1000], lambda: True)
