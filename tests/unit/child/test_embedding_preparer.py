"""Inputs of an embedding become tokens: what is counted, cut, refused, and put off as heavy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Embedding, Inference, Prompt, Sampling, Tokenize
from ollama_async.core.errors import BadRequest, ContextExceeded, NotSupported
from ollama_async.workers.child.embedding_preparer import CHARACTERS_LIMIT, EmbeddingPreparer
from ollama_async.workers.child.engines.embedding import EmbeddingFacts, PairFormat
from ollama_async.workers.child.mailbox import PreparedEmbedding
from ollama_async.workers.child.resource_limits import OverBudget
from ollama_async.workers.messages import Done, Started, Submit

BOS, EOS, SEP = 256, 257, 258
NUM_CTX = 32


class FakeEngine:
    """A token for each byte but spaces, which have none."""

    def __init__(self, result="vector", pair_format=PairFormat(), *, adds=True):  # noqa: B008
        self.adds = adds
        self.tokenized = []
        self.facts = EmbeddingFacts(
            slots=8,
            num_ctx=NUM_CTX,
            vocab_size=259,
            batch_tokens=64,
            batch_inputs=8,
            result=result,
            pair_format=pair_format,
            weights_bytes=1,
        )

    def tokenize(self, text, *, add_special, **_options):
        self.tokenized.append(len(text))
        tokens = [byte for byte in text.encode() if byte != ord(" ")]
        return [BOS, *tokens, EOS] if add_special and self.adds else tokens

    def piece_with_control(self, token):
        return bytes([token])


def prepare(task, engine=None, *, is_quick=False):
    preparer = EmbeddingPreparer(engine or FakeEngine(), None)
    return preparer.prepare(Submit(7, task, "ann"), is_quick=is_quick)


def inputs(*args, engine=None, **options):
    [prepared] = prepare(Embedding(*args, **options), engine)
    assert isinstance(prepared, PreparedEmbedding)
    assert (prepared.id, prepared.client) == (7, "ann")
    return prepared.inputs


def test_special_tokens_are_added_to_texts_only():
    assert inputs(["ab", "", [1, 2]]) == [[BOS, 97, 98, EOS], [BOS, EOS], [1, 2]]


@pytest.mark.parametrize("text", ["x" * 31, "x" * 1_000_000])
def test_a_long_text_keeps_its_special_tokens(text):
    assert inputs([text]) == [[BOS, *b"x" * 30, EOS]]
    with pytest.raises(ContextExceeded, match=r"^the input length exceeds the context length$"):
        inputs([text], truncate=False)


def test_token_ids_are_cut_as_they_are():
    assert inputs([[9] * 100]) == [[9] * 32]
    with pytest.raises(ContextExceeded):
        inputs([[9] * 100], truncate=False)


@pytest.mark.parametrize(("num_ctx", "length"), [(3, 3), (10, 10), (1000, 32)])
def test_a_request_has_its_own_limit(num_ctx, length):
    assert [len(each) for each in inputs(["x" * 100], num_ctx=num_ctx)] == [length]


@pytest.mark.parametrize("num_ctx", [1, 2])
def test_a_context_of_special_tokens_has_no_space(num_ctx):
    with pytest.raises(
        BadRequest, match=r"^input after truncation exceeds maximum context length$"
    ):
        inputs(["x"], num_ctx=num_ctx)


@pytest.mark.parametrize("given", ["", "   ", []])
def test_an_input_without_tokens_is_refused(given):
    with pytest.raises(BadRequest, match="it has no tokens"):
        inputs([given], engine=FakeEngine(adds=False))


@pytest.mark.parametrize("token", [-1, 259, 2**40])
def test_tokens_that_the_model_does_not_have(token):
    with pytest.raises(BadRequest, match="input: this model does not have all of these tokens"):
        inputs([[1, token]])


def test_spaces_that_are_no_tokens_do_not_make_a_text_too_long():
    text = " " * 100_000 + "ab"
    assert inputs([text], truncate=False) == [[BOS, 97, 98, EOS]]


def test_of_an_endless_text_only_a_beginning_is_read():
    engine = FakeEngine()
    inputs(["x" * 10_000_000, " " * 10_000_000], engine=engine)
    assert max(engine.tokenized) <= CHARACTERS_LIMIT
    assert sum(engine.tokenized) < CHARACTERS_LIMIT + 100_000
    with pytest.raises(ContextExceeded):
        inputs([" " * 10_000_000], truncate=False)


@pytest.mark.parametrize("texts", [["x" * 5000] * 16, ["xy"] * 17_000])
def test_much_text_is_left_to_the_heavy_queue(texts):
    with pytest.raises(OverBudget):
        prepare(Embedding(texts), is_quick=True)
    assert len(inputs(texts)) == len(texts)


def test_no_inputs_are_answered_at_once():
    started, done = prepare(Embedding([]))
    assert isinstance(started, Started)
    assert isinstance(done, Done)


class TestPairs:
    FORMAT = PairFormat(front=(BOS,), between=(EOS, SEP), end=(EOS,))

    def pair(self, query, document, **options):
        [tokens] = inputs([document], query, engine=FakeEngine("score", self.FORMAT), **options)
        return tokens

    def test_a_query_and_a_document_become_one_input(self):
        assert self.pair("q", "d") == [BOS, ord("q"), EOS, SEP, ord("d"), EOS]

    def test_a_long_document_is_cut(self):
        tokens = self.pair("q", "d" * 100)
        assert (len(tokens), tokens[:5], tokens[-1]) == (32, self.pair("q", "d")[:5], EOS)
        with pytest.raises(ContextExceeded):
            self.pair("q", "d" * 100, truncate=False)

    def test_a_long_query_is_refused(self):
        with pytest.raises(ContextExceeded):
            self.pair("q" * 100, "d")

    def test_a_document_is_a_text(self):
        with pytest.raises(BadRequest, match="a document must be a text"):
            self.pair("q", [1])


class TestTemplates:
    FORMAT = PairFormat(template="<{query}|{document}>")

    def pair(self, query, document, **options):
        [tokens] = inputs([document], query, engine=FakeEngine("score", self.FORMAT), **options)
        return bytes(tokens).decode()

    def test_it_is_filled_once(self):
        assert self.pair("{document}", "{query}") == "<{document}|{query}>"

    def test_a_long_document_is_cut_so_that_the_end_stays(self):
        pair = self.pair("q", "d" * 5000)
        assert pair == f"<q|{'d' * (len(pair) - 4)}>"
        assert NUM_CTX - 2 < len(pair) <= NUM_CTX

    def test_a_long_query_is_refused(self):
        with pytest.raises(ContextExceeded):
            self.pair("q" * 100, "d" * 100)

    def test_a_pair_has_tokens(self):
        with pytest.raises(BadRequest, match="it has no tokens"):
            inputs([""], " ", engine=FakeEngine("score", PairFormat(template="{query}")))

    @given(st.text(max_size=60))
    def test_a_cut_pair_has_the_template_around_it(self, document):
        try:
            text = self.pair("q", document)
        except ContextExceeded:
            pytest.fail("a document of any text can be cut")
        assert text.startswith("<q|")
        assert text.endswith(">")


@pytest.mark.parametrize(
    ("result", "query", "error", "text"),
    [
        ("score", None, BadRequest, "does not embed"),
        ("vector", "q", NotSupported, "does not support reranking"),
        ("none", None, BadRequest, "Pooling type 'none'"),
    ],
)
def test_what_a_model_cannot_do(result, query, error, text):
    with pytest.raises(error, match=text):
        inputs(["x"], query, engine=FakeEngine(result))


def test_an_embedding_model_does_not_generate_and_tokenizes():
    with pytest.raises(NotSupported):
        prepare(Inference(Prompt(raw="x"), Sampling()))
    _, done = prepare(Tokenize("ab", add_special=True))
    assert done.context == [BOS, 97, 98, EOS]
