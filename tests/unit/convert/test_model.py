"""Whole directories: what comes out of sound ones, and what is said of the others."""

import json

import numpy as np
import pytest

from ollama_async.convert.architectures import ARCHITECTURES, find_architecture, interleave
from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.model import convert_model
from ollama_async.convert.safetensors import Safetensors
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import summarize
from tests.unit.convert.folders import FIXTURES, changed, files_of, ones, write_tensors

NAMES = sorted(path.name for path in FIXTURES.iterdir() if (path / "config.json").exists())


def convert(files, out, kind=None):
    return list(convert_model(files, out, kind))


def set_to(**values):
    return lambda content: content.update(values)


@pytest.mark.parametrize("name", NAMES)
def test_our_own_reader_understands_what_comes_out(tmp_path, name):
    steps = convert(files_of(name), tmp_path / "out")
    header = read_header(tmp_path / "out")
    facts = summarize(header)
    config = json.loads((FIXTURES / name / "config.json").read_text())
    config |= config.get("text_config", {})
    assert facts.kind == "model"
    numbers = {key.partition(".")[2]: value for key, value in header.metadata.items()}
    assert numbers["context_length"] == config["max_position_embeddings"]
    assert numbers["embedding_length"] == config["hidden_size"]
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (sum(tensor.size for tensor in header.tensors),) * 2


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("llama", None, "BF16"),
        ("llama2", None, "F16"),
        ("bert", None, "F16"),
        ("llama", "F32", "F32"),
        ("llama2", "BF16", "BF16"),
    ],
)
def test_kinds_of_numbers(tmp_path, name, kind, wanted):
    convert(files_of(name), tmp_path / "out", kind)
    header = read_header(tmp_path / "out")
    assert summarize(header).quantization == wanted
    numbers = {"F32": 0, "F16": 1, "BF16": 30}
    small = ("position_embd.weight", "token_types.weight")
    for tensor in header.tensors:
        kept = len(tensor.shape) == 1 or tensor.name in small
        assert tensor.type == numbers["F32" if kept else wanted], tensor.name


def test_the_same_files_give_the_same_bytes(tmp_path):
    for name in "ab":
        convert(files_of("qwen2"), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_closing_the_iterator_stops_the_work(tmp_path):
    steps = convert_model(files_of("llama"), tmp_path / "out")
    done, total = next(steps)
    steps.close()
    assert done < total
    assert (tmp_path / "out").stat().st_size < total


# ----------------------------------------------------------------- what is refused


def test_an_unknown_architecture_is_rejected_with_the_supported_ones(tmp_path):
    files = changed(
        files_of("llama"), "config.json", tmp_path, set_to(architectures=["MambaForCausalLM"])
    )
    with pytest.raises(BadRequest, match="MambaForCausalLM; supported are BertFor"):
        convert(files, tmp_path / "out")
    with pytest.raises(BadRequest, match="has no architecture"):
        convert({}, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("llama", {"hidden_size": None}, 'has no "hidden_size"'),
        ("llama", {"hidden_size": -4}, '"hidden_size" is not a positive number'),
        ("llama", {"hidden_size": 1 << 40}, "not a positive number"),
        ("llama", {"num_hidden_layers": True}, "not a positive number"),
        ("llama", {"num_hidden_layers": 3}, r"for blk\.2\.\S+ blk\.2\S+ blk\.2\S+ are missing"),
        ("llama", {"num_hidden_layers": 513}, "more than 512 layers"),
        ("llama", {"head_dim": 7}, "not heads of 7"),
        ("llama", {"head_dim": 1 << 30}, "too large"),
        ("llama", {"head_dim": None, "num_attention_heads": 5}, "do not divide the width"),
        ("llama", {"num_hidden_layers": 1}, "is unknown in models of this architecture"),
        ("gemma2", {"query_pre_attn_scalar": 99}, "scaled in a way that llama.cpp does not"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "every sixth layer"),
        ("bert", {"hidden_act": "relu"}, "the activation is relu, not gelu"),
        ("llama", {"hidden_act": "gelu"}, "the activation is gelu, not silu"),
        ("bert", {"position_embedding_type": "relative_key"}, "are not absolute"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, name, change, reason):
    files = changed(files_of(name), "config.json", tmp_path, set_to(**change))
    with pytest.raises(BadRequest, match=reason):
        convert(files, tmp_path / "out")


def tensors_of(name):
    with Safetensors(files_of(name)["model.safetensors"], "model.safetensors") as file:
        return {tensor: file.read(tensor) for tensor in file.tensors}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lm_head.weight": None}, r"for output\.weight are missing"),
        ({"model.embed_tokens.weight": None}, r"token_embd\.weight"),
        ({"model.layers.1.mlp.up_proj.weight": None}, r"blk\.1\.ffn_up\.weight"),
        ({"model.layers.0.extra.weight": ones(2)}, "is unknown"),
        ({"embed_tokens.weight": ones(2, 2)}, "two tensors have the same GGUF name"),
        ({"model.norm.weight": ones(1, 1, 1)}, "unusual shape"),
        ({"model.norm.weight": ones(0)}, "unusual shape"),
        ({"lm_head.weight": ones(336, 32) * 1e5}, "that are too large for F16"),
    ],
)
def test_tensors_that_do_not_make_a_model_are_refused(tmp_path, change, reason):
    tensors = {
        name: array
        for name, array in {**tensors_of("llama"), **change}.items()
        if array is not None
    }
    path = write_tensors(tmp_path / "weights", tensors)
    with pytest.raises(BadRequest, match=reason):
        convert({**files_of("llama"), "model.safetensors": path}, tmp_path / "out", "F16")


def test_embeddings_that_are_tied_are_written_once(tmp_path):
    files = changed(files_of("llama"), "config.json", tmp_path, set_to(tie_word_embeddings=True))
    convert(files, tmp_path / "out")
    names = {tensor.name for tensor in read_header(tmp_path / "out").tensors}
    assert "token_embd.weight" in names
    assert "output.weight" not in names


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([{"type": "x.Dense", "path": "2_Dense"}], "'Dense'"),
        ([{"type": "x.Pooling", "path": "../../etc"}], "is missing"),
        ({}, "not a list"),
    ],
)
def test_unknown_pooling_is_rejected(tmp_path, modules, reason):
    path = tmp_path / "modules"
    path.write_text(json.dumps(modules))
    with pytest.raises(BadRequest, match=reason):
        convert({**files_of("bert"), "modules.json": path}, tmp_path / "out")


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("pooling_mode_mean_tokens", 1),
        ("pooling_mode_cls_token", 2),
        ("pooling_mode_lasttoken", 3),
        ("pooling_mode_max_tokens", None),
    ],
)
def test_pooling(tmp_path, mode, number):
    path = tmp_path / "pooling"
    path.write_text(json.dumps({mode: True}))
    files = {**files_of("bert"), "1_Pooling/config.json": path}
    if number is None:
        with pytest.raises(BadRequest, match="pooled in a way"):
            convert(files, tmp_path / "out")
        return
    convert(files, tmp_path / "out")
    assert read_header(tmp_path / "out").metadata["bert.pooling_type"] == number


def test_vectors_that_are_pooled_in_two_ways_are_refused(tmp_path):
    path = tmp_path / "pooling"
    path.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}))
    with pytest.raises(BadRequest, match="pooling_mode_mean_tokens, pooling_mode_max_tokens"):
        convert({**files_of("bert"), "1_Pooling/config.json": path}, tmp_path / "out")


def test_letters_that_are_made_small_before_the_tokenizer_are_refused(tmp_path):
    path = tmp_path / "sentences"
    path.write_text(json.dumps({"do_lower_case": True}))
    files = {**files_of("bert"), "sentence_bert_config.json": path}
    convert(files, tmp_path / "out")  # the tokenizer makes them small anyway
    files = changed(
        files, "tokenizer.json", tmp_path, lambda c: c["normalizer"].update(lowercase=False)
    )
    with pytest.raises(BadRequest, match=r'sentence_bert_config\.json: "do_lower_case"'):
        convert(files, tmp_path / "out")


def test_a_decoder_without_an_end_token_is_rejected(tmp_path):
    files = changed(
        files_of("qwen2"), "tokenizer_config.json", tmp_path, lambda c: c.pop("eos_token")
    )
    with pytest.raises(BadRequest, match="the token that ends an answer"):
        convert(files, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("mistral", {"sliding_window": 8}, '"sliding_window"'),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8,
                   "layer_types": ["sliding_attention"] * 2}, '"sliding_window"'),
        ("gemma2", {"hidden_activation": "silu"}, '"hidden_activation"'),
        ("gemma2", {"final_logit_softcapping": None}, '"final_logit_softcapping"'),
        ("llama", {"attention_bias": False}, '"attention_bias"'),
        ("llama", {"num_key_value_heads": 4}, "has the shape"),
        ("llama", {"is_causal": False}, '"is_causal"'),
        ("llama", {"quantization_config": {"bits": 4}}, '"quantization_config"'),
        ("bert", {"is_decoder": True}, '"is_decoder"'),
    ],
)  # fmt: skip
def test_unsupported_options_are_rejected_by_name(tmp_path, name, change, reason):
    """A few of the rows of ``tests/fixtures/convert/config_options.py``, without the engine."""
    files = changed(files_of(name), "config.json", tmp_path, set_to(**change))
    with pytest.raises(BadRequest, match=reason):
        convert(files, tmp_path / "out")


# ----------------------------------------------------------------- families


def test_rows_are_interleaved_within_each_head():
    rows = np.arange(8, dtype=np.float32)
    assert interleave(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_configuration_of_several_networks_gives_the_text_part_with_defaults():
    document = JsonObject(
        "config.json",
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "eos_token_id": [1, 106],
            "text_config": {"hidden_size": 64, "sliding_window": None},
        },
    )
    family, inner = find_architecture(document)
    assert family is ARCHITECTURES["Gemma3ForCausalLM"]
    assert inner.count("hidden_size") == 64
    assert inner.count("sliding_window") == 4096
    assert inner.values["eos_token_id"] == [1, 106]
