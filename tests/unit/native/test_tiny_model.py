"""The model that the self-check and the tests write."""

import gguf
import pytest

from ollama_async.native.tiny_model import write_tiny_model


def _fields(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("quantization", ["F32", "F16", "Q8_0", "Q4_0"])
def test_the_same_arguments_give_the_same_bytes(tmp_path, quantization):
    first = write_tiny_model(tmp_path / "first.gguf", quantization=quantization).read_bytes()
    second = write_tiny_model(tmp_path / "second.gguf", quantization=quantization).read_bytes()
    assert first == second


def test_another_seed_gives_other_weights_of_the_same_size(tmp_path):
    first = write_tiny_model(tmp_path / "first.gguf").read_bytes()
    second = write_tiny_model(tmp_path / "second.gguf", seed=1).read_bytes()
    assert first != second
    assert len(first) == len(second)


def test_every_byte_has_a_token_and_no_text_is_there_twice(tmp_path):
    fields = _fields(write_tiny_model(tmp_path / "tiny.gguf", control_tokens=["<|end|>"]))
    texts = fields["tokenizer.ggml.tokens"]
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(texts)
    assert "<|end|>" in texts
    assert len(texts) == len(set(texts))
    assert len(texts) == len(fields["tokenizer.ggml.scores"])
    assert len(texts) == len(fields["tokenizer.ggml.token_type"])


def test_metadata_adds_replaces_and_removes_keys(tmp_path):
    path = write_tiny_model(
        tmp_path / "tiny.gguf",
        context=99,
        chat_template="{{ messages }}",
        metadata={
            "general.name": "mine",
            "general.tags": ["a", "b"],
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.ggml.scores": None,
            "test.ratio": 0.5,
        },
    )
    fields = _fields(path)
    assert fields["general.name"] == "mine"
    assert fields["general.tags"] == ["a", "b"]
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["test.ratio"] == 0.5
    assert fields["llama.context_length"] == 99
    assert fields["tokenizer.chat_template"] == "{{ messages }}"
    assert "tokenizer.ggml.scores" not in fields


def test_the_vocabulary_is_padded_to_the_requested_size(tmp_path):
    fields = _fields(write_tiny_model(tmp_path / "tiny.gguf", vocab=1000))
    assert len(fields["tokenizer.ggml.tokens"]) == 1000


@pytest.mark.parametrize(
    "wrong", [{"width": 65}, {"feed_forward": 100}, {"heads": 5}, {"kv_heads": 3}, {"vocab": 10}]
)
def test_inconsistent_dimensions_are_rejected_without_a_file(tmp_path, wrong):
    with pytest.raises(ValueError, match="must"):
        write_tiny_model(tmp_path / "tiny.gguf", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_changes_the_names_of_its_keys(tmp_path):
    fields = _fields(write_tiny_model(tmp_path / "tiny.gguf", architecture="unheard-of"))
    assert fields["general.architecture"] == "unheard-of"
    assert "unheard-of.block_count" in fields
