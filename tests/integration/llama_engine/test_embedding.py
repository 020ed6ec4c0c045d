"""The real engine for embedding models, on encoders and decoders with random weights."""

import numpy as np
import pytest

from ollama_async.core.conversation import Embedding
from ollama_async.core.errors import LoadFailed
from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import summarize
from ollama_async.hw.placement import LoadParameters, estimate_memory
from ollama_async.native.tiny_encoder import (
    CLS,
    POOLING_TYPES,
    SEP,
    EncoderShape,
    write_tiny_encoder,
)
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.embedding_preparer import EmbeddingPreparer
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.engines.llama_embedding import load
from ollama_async.workers.messages import Submit
from tests.integration.llama_engine.harness import spec_of

pytestmark = pytest.mark.engine

TEMPLATE = "<|turn|>Query: {query}\nDocument: {document}<|turn|>"


def causal(path, pooling, **metadata):
    """With a KV cache."""
    return write_tiny_model(
        path,
        context=256,
        control_tokens=("<|turn|>",),
        metadata={"llama.pooling_type": POOLING_TYPES[pooling], **metadata},
    )


def reranker(path, labels=("yes", "no")):
    """As Qwen3-Reranker is converted: a decoder whose classifier answers "yes" or "no"."""
    norms = {
        f"blk.{layer}.{name}.weight": np.ones(16, np.float32)
        for layer in range(2)
        for name in ("attn_q_norm", "attn_k_norm")
    }
    yes, no = np.random.default_rng(1).standard_normal((2, 64), np.float32)
    classifier = np.array([yes, no] if labels[0] == "yes" else [no, yes])
    return write_tiny_model(
        path,
        architecture="qwen3",
        control_tokens=("<|turn|>",),
        metadata={
            "qwen3.pooling_type": POOLING_TYPES["rank"],
            "qwen3.attention.key_length": 16,
            "qwen3.attention.value_length": 16,
            "qwen3.classifier.output_labels": list(labels),
            "tokenizer.chat_template": "chat",
            "tokenizer.chat_template.rerank": TEMPLATE,
            "tokenizer.chat_templates": ["rerank"],
        },
        more_tensors={**norms, "cls.output.weight": classifier},
    )


MODELS = {
    "mean": lambda path: write_tiny_encoder(path, pooling="mean"),
    "cls": lambda path: write_tiny_encoder(path, pooling="cls"),
    "rank": lambda path: write_tiny_encoder(path, pooling="rank"),
    "reranker": reranker,
    "q8": lambda path: write_tiny_encoder(path, quantization="Q8_0"),
    "unset": lambda path: write_tiny_encoder(path, pooling=None),
    "causal last": lambda path: causal(path, "last"),
    "causal mean": lambda path: causal(path, "mean"),
    "bidirectional": lambda path: causal(path, "mean", **{"llama.attention.causal": False}),
}


@pytest.fixture
def open_engine(tmp_path):
    """Loads what a function writes; closes it after the test."""
    opened = []

    def open_engine(write, **changes):
        path = write(tmp_path / "model.gguf")
        kind = summarize(read_header(path)).embedding
        options = {"num_ctx": 128, "batch_size": 256, "embedding": kind, **changes}
        opened.append(load(spec_of(path, **options), lambda _fraction: None))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def never():
    return False


def vectors(engine, inputs):
    return [np.frombuffer(data, "<f4") for data in engine.embed(inputs, never)]


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def prepare(engine, inputs, query=None, **options):
    request = Submit(1, Embedding(inputs, query, **options), "ann")
    [prepared] = EmbeddingPreparer(engine, None).prepare(request, is_quick=False)
    return prepared.inputs


def some_inputs(engine, seed=1, most=90):
    """Of all lengths; together more than a batch."""
    random = np.random.default_rng(seed)
    lengths = [1, 2, most, *random.integers(1, 12, 9)]
    return [random.integers(5, engine.facts.vocab_size, length).tolist() for length in lengths]


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_what_each_input_gives_alone(open_engine, name):
    engine = open_engine(MODELS[name])
    inputs = some_inputs(engine)
    alone = [vectors(engine, [each])[0] for each in inputs]
    together = vectors(engine, inputs)
    backwards = vectors(engine, inputs[::-1])[::-1]

    for one, other, third in zip(alone, together, backwards, strict=True):
        assert one.shape == ((1,) if "rank" in name else (64,))
        np.testing.assert_allclose(other, one, rtol=0.02, atol=0.02)
        if "rank" not in name:
            assert min(cosine(one, other), cosine(one, third)) > 0.9999


@pytest.mark.parametrize("name", ["mean", "causal last"])
def test_different_inputs_differ(open_engine, name):
    engine = open_engine(MODELS[name])
    one, other, third = vectors(engine, prepare(engine, ["the people", "people the", "water"]))

    assert max(cosine(one, other), cosine(one, third), cosine(other, third)) < 0.999


def test_nothing_of_an_earlier_batch_is_left(open_engine):
    engine = open_engine(MODELS["causal last"])
    inputs = some_inputs(engine)
    first = vectors(engine, inputs[:2])
    vectors(engine, inputs)
    assert np.array_equal(first, vectors(engine, inputs[:2]))


def test_special_tokens_are_added_to_texts_and_kept_in_cut_ones(open_engine):
    engine = open_engine(MODELS["mean"])
    short, empty, ids, long = prepare(engine, ["the word", "", [7, 8], "the " * 500])

    assert (short[0], short[-1]) == (CLS, SEP)
    assert engine.tokenize("the word", add_special=True, parse_special=True) == short
    assert (empty, ids) == ([CLS, SEP], [7, 8])
    assert (len(long), long[0], long[-1]) == (128, CLS, SEP)
    assert prepare(engine, ["the " * 500], num_ctx=5) == [[*long[:4], SEP]]


def test_a_long_word_that_is_one_unknown_token_is_not_too_long(open_engine):
    engine = open_engine(MODELS["mean"])
    text = "ж" * 70_000 + " the"
    [tokens] = prepare(engine, [text], truncate=False)
    assert tokens == engine.tokenize(text, add_special=True, parse_special=True)


def test_a_decoder_has_only_what_its_vocabulary_adds(open_engine):
    engine = open_engine(MODELS["causal last"])
    [tokens] = prepare(engine, ["the word"])
    assert tokens[0] == 1  # BOS
    assert tokens == engine.tokenize("the word", add_special=True, parse_special=True)


def test_a_pair_is_put_together_as_llama_server_does(open_engine):
    engine = open_engine(MODELS["rank"])
    query, document = (
        engine.tokenize(text, add_special=False, parse_special=False)
        for text in ("the [SEP] query", "the document")
    )
    [pair] = prepare(engine, ["the document"], "the [SEP] query")

    assert pair == [CLS, *query, SEP, *document]
    assert pair.count(SEP) == 1  # the query's is text
    [cut] = prepare(engine, ["the " * 500], "the [SEP] query")
    assert len(cut) == 128
    assert cut[: len(query) + 2] == pair[: len(query) + 2]


def test_a_vocabulary_may_add_an_eos_to_both_parts_of_a_pair(open_engine):
    added = {"tokenizer.ggml.add_eos_token": True}
    engine = open_engine(lambda path: write_tiny_encoder(path, pooling="rank", metadata=added))
    [pair] = prepare(engine, [""], "")
    assert pair == [CLS, SEP, SEP, SEP]


def test_a_template_makes_the_pair(open_engine):
    engine = open_engine(reranker)

    def tokens(text):
        return engine.tokenize(text, add_special=False, parse_special=True)

    [pair] = prepare(engine, ["b"], "a {document}")
    assert pair == tokens("<|turn|>Query: a {document}\nDocument: b<|turn|>")
    [cut] = prepare(engine, ["the people " * 500], "a")
    assert 120 < len(cut) <= 128
    assert cut[-1] == tokens("<|turn|>")[-1]


@pytest.mark.parametrize("name", ["rank", "reranker"])
def test_scores_depend_on_both_parts(open_engine, name):
    engine = open_engine(MODELS[name])
    inputs = prepare(engine, ["water", "the people"], "water")
    inputs += prepare(engine, ["water"], "people")
    scores = [float(vector[0]) for vector in vectors(engine, inputs)]
    assert len(set(scores)) == 3


def test_a_score_is_a_logit_also_where_the_library_gives_probabilities(open_engine):
    def scores(labels):
        engine = open_engine(lambda path: reranker(path, labels))
        inputs = prepare(engine, ["water", "the people", "some"], "water")
        return np.concatenate(vectors(engine, inputs))

    of_yes = scores(("yes", "no"))
    np.testing.assert_allclose(of_yes, -scores(("no", "yes")), rtol=1e-3, atol=1e-3)
    assert np.ptp(of_yes) > 0.1


def test_broken_weights_give_nan_and_the_engine_goes_on(open_engine):
    engine = open_engine(lambda path: write_tiny_encoder(path, nan=True))
    assert all(np.isnan(vector).any() for vector in vectors(engine, some_inputs(engine)[:3]))


def test_a_batch_that_does_not_fit_is_an_error_and_the_engine_goes_on(open_engine):
    engine = open_engine(MODELS["mean"])
    with pytest.raises(EngineError, match="a step of 300 tokens"):
        engine.embed([[7] * 300], never)
    with pytest.raises(EngineError, match="not valid"):
        engine.embed([[10**9]], never)
    assert len(engine.embed([[7]], never)) == 1


def test_a_model_without_pooling_has_no_vectors_of_inputs(open_engine):
    none = {"bert.pooling_type": 0}
    engine = open_engine(lambda path: write_tiny_encoder(path, metadata=none))
    assert engine.facts.result == "none"


def test_the_longest_input_is_the_trained_context(open_engine):
    engine = open_engine(MODELS["mean"], num_ctx=100_000)
    assert engine.facts.num_ctx == 128
    assert engine.facts.batch_tokens == 256


@pytest.mark.parametrize("name", ["mean", "causal last", "causal mean"])
def test_the_memory_that_a_plan_expects_suffices(open_engine, tmp_path, name):
    shape = EncoderShape(layers=3, width=256, heads=4, feed_forward=1024, context=1024)
    write = {
        "mean": lambda path: write_tiny_encoder(path, shape),
        "causal last": lambda path: write_tiny_model(
            path, width=256, feed_forward=1024, vocab=30_000, metadata={"llama.pooling_type": 3}
        ),
        "causal mean": lambda path: write_tiny_model(
            path, width=256, feed_forward=1024, vocab=30_000, metadata={"llama.pooling_type": 1}
        ),
    }[name]
    facts = open_engine(write, num_ctx=1024, batch_size=256).facts
    summary = summarize(read_header(tmp_path / "model.gguf"))
    planned = estimate_memory(
        LoadParameters(
            weights_bytes=summary.weights_bytes,
            cache_bytes_per_token=summary.cache_bytes_per_token,
            cache_type="f16",
            num_ctx=1024,
            batch_size=256,
            on_cpu=True,
            shape=summary.shape,
            embedding=summary.embedding,
        ),
        slots=64,
    )

    assert planned.cache_bytes == facts.cache_bytes
    assert facts.compute_bytes <= planned.compute_bytes < 3 * facts.compute_bytes + (128 << 20)
    assert facts.weights_bytes <= planned.weights_bytes


def test_a_long_batch_can_be_abandoned(open_engine):
    shape = EncoderShape(context=1024)
    engine = open_engine(lambda path: write_tiny_encoder(path, shape), num_ctx=1024)
    asked = []

    def after_three_times():
        asked.append(None)
        return len(asked) > 3

    before = vectors(engine, [[7] * 20])
    with pytest.raises(EngineError, match="aborted"):
        engine.embed([[7] * 1000], after_three_times)
    assert len(asked) == 4
    assert np.array_equal(before, vectors(engine, [[7] * 20]))
    assert len(engine.embed([[7] * 1000], never)) == 1


def test_a_long_input_of_a_decoder_is_evaluated_in_steps(open_engine):
    write = MODELS["causal last"]
    inputs = some_inputs(open_engine(write), most=120)
    whole = open_engine(write, embedding="whole")
    split = open_engine(write, embedding="split", batch_size=32)
    asked = []

    assert split.facts.num_ctx == 128
    for each in inputs:
        assert cosine(vectors(whole, [each])[0], vectors(split, [each])[0]) > 0.9999
    with pytest.raises(EngineError):
        split.embed([inputs[2]], lambda: asked.append(None) or True)
    assert len(asked) == 1
    assert np.array_equal(vectors(split, inputs[:2]), vectors(split, inputs[:2]))


def test_a_decoder_that_looks_ahead_is_never_split(open_engine):
    write = MODELS["bidirectional"]
    inputs = some_inputs(open_engine(write))
    engine = open_engine(write, embedding="split", batch_size=32)
    whole = open_engine(write, embedding="whole", batch_size=32)
    assert cosine(*(vectors(each, [inputs[2]])[0] for each in (engine, whole))) > 0.9999
    assert engine.facts == whole.facts, "nothing of the first try counts"


@pytest.mark.parametrize("name", ["mean", "causal last"])
def test_a_batch_of_one_token_is_made_larger(open_engine, name):
    engine = open_engine(MODELS[name], batch_size=1)
    assert engine.facts.batch_tokens == 32
    assert len(engine.embed([[7], [8, 9]], never)) == 2


def test_an_unknown_pooling_type_is_refused(open_engine):
    unknown = {"bert.pooling_type": 77}
    with pytest.raises(LoadFailed, match="unknown pooling type 77"):
        open_engine(lambda path: write_tiny_encoder(path, metadata=unknown))
