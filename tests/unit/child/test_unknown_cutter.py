"""Texts that are cut before characters that a SentencePiece vocabulary does not know.

The library tells what is right: it tokenizes the whole text.
"""

import llama_cpp.llama_cpp as lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.engines import llama_model, text_cutter, unknown_cutter
from ollama_async.workers.child.engines.llama_model import LlamaTokenizer, LogCapture
from ollama_async.workers.child.engines.unknown_cutter import UnknownCutter
from tests.growth import is_linear
from tests.unit.gguf_files import GgufBuilder

pytestmark = pytest.mark.engine

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTES = [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
TOKENS = [
    *(("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), *BYTES, ("<|user|>", CONTROL)),
    *(("<|endoftext|>", CONTROL), ("<u>", USER_DEFINED), ("aé", UNUSED)),
    *((text, NORMAL) for text in ["▁", "▁▁", "a", "b", "ab", "▁a", "é", "ba", "<"]),
]
SPECIAL = ["<s>", "<|user|>", "<u>", "\t\t"]
ALPHABET = [*"abé ▁\n\t\v🙂\ud800\0<", "e\u0301", *SPECIAL]
TEXTS = st.lists(st.sampled_from(ALPHABET), max_size=40).map("".join)


def vocabulary(path, name, has_space, *more):
    """The library takes from the name "phi-3" that special tokens remove white space."""
    tokens = [*TOKENS, *((text, USER_DEFINED) for text in more)]
    builder = GgufBuilder().text("general.name", name).text("tokenizer.ggml.model", "llama")
    builder.texts("tokenizer.ggml.tokens", [text for text, _ in tokens])
    builder.numbers("tokenizer.ggml.token_type", "i32", [kind for _, kind in tokens])
    builder.numbers("tokenizer.ggml.scores", "f32", [len(text) for text, _ in tokens])
    builder.number("tokenizer.ggml.add_space_prefix", "bool", has_space)
    builder.write(path)
    log = LogCapture()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, log.reason()
    return model


@pytest.fixture(
    scope="module",
    params=[
        *(("x", True), ("x", False), ("x", True, "\t\t")),
        *(("phi-3", True), ("phi-3", False), ("phi-3", True, "\t\t")),
    ],
    ids=str,
)
def tokenizer(request, tmp_path_factory):
    model = vocabulary(tmp_path_factory.mktemp("vocabulary") / "model.gguf", *request.param)
    yield LlamaTokenizer(model)
    lib.llama_model_free(model)


@given(
    st.lists(st.sampled_from(ALPHABET + SPECIAL), max_size=40).map("".join),
    st.booleans(),
    st.booleans(),
)
def test_pieces_have_the_tokens_of_the_whole(tokenizer, text, adds, parses):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_cutter, "PIECE_TOKENS", 2)
        patch.setattr(unknown_cutter, "PIECE_CHARACTERS", 2)
        whole = tokenizer.tokenize(text, add_special=adds, parse_special=parses)
        patch.setattr(llama_model, "SHORT_BYTES", 0 if text else 1)
        assert tokenizer.tokenize(text, add_special=adds, parse_special=parses) == whole


@pytest.mark.parametrize(
    "repeated",
    ["\n", "🙂", "a\n", "<|user|>x\n", "ab" * 3000 + "\n", "\n" * 3000 + "ab", "<u>" + "\r" * 4091],
)
def test_a_text_of_unknown_characters_becomes_short_pieces(repeated):
    cutter = cutter_of(strips_after=False)
    text = (repeated * 30_000)[:100_000]
    pieces = [piece.decode() for piece in cutter.pieces(text.encode())]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) < unknown_cutter.PIECE_CHARACTERS + len(repeated) + 2
    assert min(map(len, pieces[:-1])) >= unknown_cutter.PIECE_CHARACTERS


def test_white_space_that_a_token_removes_is_not_cut():
    for text in ("<u>" + "\n" * 9000, "a" * 5000 + "<u>\n" + " \n" * 9000 + "x"):
        assert [*cutter_of(strips_after=True).pieces(text.encode())] == [text.encode()]
    text = ("\n" * 9000 + "<u>").encode()
    assert [*cutter_of(strips_before=True).pieces(text)] == [text]


def test_tokens_of_white_space_that_remove_what_follows_forbid_all_cuts():
    cutter = UnknownCutter([b"\t\t"], [b"\t\t"], strips_before=False, strips_after=True)
    text = b"a\t\t\n" * 9000
    assert [*cutter.pieces(text)] == [text]


def test_tokens_that_are_parts_of_characters_forbid_all_cuts():
    cutter = UnknownCutter([b"a\xc3"], [b"a\xc3"], strips_before=False, strips_after=False)
    text = "aé\n".encode() * 9000
    assert [*cutter.pieces(text)] == [text]


def test_a_text_of_known_characters_is_one_piece():
    for text in (b"", b"ab " * 9000):
        assert [*cutter_of().pieces(text)] == [text]


def cutter_of(*, strips_before=False, strips_after=False):
    return UnknownCutter(
        [text.encode() for text, _ in TOKENS],
        [b"<u>", b"<|user|>"],
        strips_before=strips_before,
        strips_after=strips_after,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [("x", True), ("phi-3", True)], indirect=True, ids=str)
@pytest.mark.parametrize("text", ["\n", "<u>\n", "a\n"])
def test_the_time_to_tokenize_unknown_characters_is_linear(tokenizer, text):
    def prepare(size):
        return lambda: tokenizer.tokenize(text * size, add_special=True, parse_special=True)

    assert is_linear(prepare, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["\n", "<u>\n", "<u>" + "\n" * 4093])
def test_the_time_to_cut_is_linear_where_tokens_remove_white_space(text):
    def prepare(size):
        data = (text * size)[:size].encode()
        cutter = cutter_of(strips_after=True)
        return lambda: [*cutter.pieces(b"<u>" + data)]

    assert is_linear(prepare, 20_000)
