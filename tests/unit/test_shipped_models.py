"""The model files in the package: their size, and what they say of themselves."""

import pytest
from gguf import GGUFReader

from ollama_async.shipped_models import FOLDER

PATH = FOLDER / "demo.gguf"
EMBEDDING = FOLDER / "demo-embed.gguf"
BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144)]
"""The letters that byte-level vocabularies write single bytes with."""


@pytest.fixture(scope="module")
def metadata():
    return {name: field.contents() for name, field in GGUFReader(PATH).fields.items()}


def test_it_is_small():
    assert PATH.stat().st_size <= 8_000_000


@pytest.mark.slow
def test_it_says_what_it_is_where_it_comes_from_and_who_may_use_it(metadata):
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "demo"
    assert metadata["general.license"] == "MIT"
    assert "Trained from scratch on a synthetic corpus" in metadata["general.description"]
    assert "ollama_async" in metadata["general.author"]


def test_it_can_write_any_byte_and_end_its_turn(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    assert {chr(code) for code in BYTES} <= set(tokens)
    assert len(BYTES) == 256
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert metadata["tokenizer.ggml.add_bos_token"] is False


@pytest.fixture(scope="module")
def embedding_metadata():
    return {name: field.contents() for name, field in GGUFReader(EMBEDDING).fields.items()}


def test_the_embedding_model_is_small_and_says_what_it_is(embedding_metadata):
    assert EMBEDDING.stat().st_size <= 1_000_000
    assert embedding_metadata["general.architecture"] == "bert"
    assert embedding_metadata["general.name"] == "demo-embed"
    assert embedding_metadata["general.license"] == "MIT"
    assert "from scratch" in embedding_metadata["general.provenance"]
