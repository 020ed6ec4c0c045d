"""``demo``, the file in the package: its size, and what it says of itself."""

import pytest
from gguf import GGUFReader

from ollama_async.models.shipped import FOLDER
from training.demo.render import CHAT_TEMPLATE, TURN_END

PATH = FOLDER / "demo.gguf"
BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144)]
"""The letters that byte-level vocabularies write single bytes with."""


@pytest.fixture(scope="module")
def metadata():
    return {name: field.contents() for name, field in GGUFReader(PATH).fields.items()}


def test_it_is_small():
    assert PATH.stat().st_size <= 8_000_000


def test_it_says_what_it_is_where_it_comes_from_and_who_may_use_it(metadata):
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "demo"
    assert metadata["general.license"] == "MIT"
    assert "Trained from scratch on a synthetic corpus" in metadata["general.description"]
    assert "ollama_async" in metadata["general.author"]


def test_its_template_is_the_one_that_it_was_trained_with(metadata):
    assert metadata["tokenizer.chat_template"] == CHAT_TEMPLATE


def test_it_can_write_any_byte_and_end_its_turn(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    assert {chr(code) for code in BYTES} <= set(tokens)
    assert len(BYTES) == 256
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == TURN_END
    assert metadata["tokenizer.ggml.add_bos_token"] is False
