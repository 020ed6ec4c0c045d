"""``demo-embed``, the file in the package, in the engine."""

from itertools import islice

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_async.shipped_models import FOLDER

from embed.corpus import triplets
from embed.engine import opened
from embed.evaluate import everyday, measured
from embed.tokenizer import WordPiece

pytestmark = pytest.mark.engine

PATH = FOLDER / "demo-embed.gguf"
MEAN_POOLING = 1
POSITIONS = 256


@pytest.fixture(scope="module")
def embedder():
    with opened(PATH) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def metadata():
    return {name: field.contents() for name, field in GGUFReader(PATH).fields.items()}


@pytest.fixture(scope="module")
def pieces(metadata):
    return WordPiece(metadata["tokenizer.ggml.tokens"])


def test_the_engine_takes_the_mean(embedder):
    assert embedder.pooling == MEAN_POOLING


def test_the_engine_sees_the_tokens_that_were_trained(embedder, pieces):
    texts = [text for row in islice(triplets(9), 1000) for text in row.texts]
    texts += [text for row in everyday() for text in row.texts]

    for text in texts:
        assert embedder.tokens(text) == pieces.encode(text, POSITIONS), text


@given(
    st.text(
        st.characters(max_codepoint=0x24F)
        | st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs", "Cn"))
    )
)
@settings(max_examples=300, deadline=None)
def test_the_engine_cuts_any_text_as_training_does(embedder, pieces, text):
    assert embedder.tokens(text) == pieces.encode(text, POSITIONS)


@pytest.mark.parametrize(
    ("sentence", "paraphrase", "others"),
    [
        (
            "Why is the sky blue?",
            "how come the sky is blue",
            ["Why is the grass green?", "How do I list models?", "My dog is called Rex."],
        ),
        (
            "My dog is called Rex.",
            "the name of my dog is Rex",
            ["My cat is called Rex.", "My dog is called Bruno.", "Rex lives in Paris."],
        ),
        (
            "How do I remove a model?",
            "please delete a model",
            ["How do I list models?", "How do I run a model?", "What is the capital of France?"],
        ),
    ],
)
def test_a_paraphrase_is_nearest(embedder, sentence, paraphrase, others):
    target, *rows = embedder.vectors([sentence, paraphrase, *others])
    similarities = [float(target @ row) for row in rows]

    assert np.argmax(similarities) == 0, similarities


@pytest.mark.slow
def test_it_still_reaches_what_its_card_says(embedder):
    """A little less is allowed: questions that are added are not trained at once."""
    least = {
        "paraphrases of trained wordings find their question": 0.95,
        "new wordings find their question": 0.80,
        "new statements lie nearer to a paraphrase than to one with another content": 0.95,
        "new statements lie nearer to a paraphrase than to any other statement": 0.99,
        "everyday sentences lie nearer to a paraphrase than to another": 0.90,
    }

    reached = {score.what: score.share for score in measured(embedder)}

    assert reached.keys() == least.keys()
    assert all(reached[what] >= least[what] for what in least), reached
