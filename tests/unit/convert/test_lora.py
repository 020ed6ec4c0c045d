"""PEFT's adapters become what llama.cpp's formula wants; what would be lost is refused."""

import contextlib
import json
import struct

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.convert.lora import CONFIG_NAME, WEIGHTS_NAME, BaseModel, convert_adapter
from ollama_async.core.errors import BadRequest

LLAMA = BaseModel(architecture="llama", layers=2, head=8)
QWEN = BaseModel(architecture="qwen2", layers=2, head=8)
Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.1.mlp.up_proj"
EMBEDDINGS = "model.embed_tokens"
WIDTH, RANK = 16, 4
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def safetensors(tensors, dtype="F32"):
    """The bytes of a file; ``tensors`` by name."""
    header, data = {}, b""
    for name, numbers in tensors.items():
        stored = np.asarray(numbers, "<f4")
        raw = (
            (stored.view("<u4") >> 16).astype("<u2").tobytes()
            if dtype == "BF16"
            else stored.astype(_DTYPES[dtype]).tobytes()
        )
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": stored.shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def numbers(rows, columns, seed=0):
    """Small ones that every type holds exactly, and all different enough to notice an order."""
    return np.random.default_rng(seed).integers(-8, 9, (rows, columns)).astype(np.float32) / 4


def matrices(module, rank=RANK, *, rows=WIDTH, columns=WIDTH):
    prefix = f"base_model.model.{module}"
    return {
        f"{prefix}.lora_A.weight": numbers(rank, columns, 1),
        f"{prefix}.lora_B.weight": numbers(rows, rank, 2),
    }


class Folder:
    """The two files of an adapter, and what they are converted to."""

    def __init__(self, path):
        self.path = path

    def convert(self, tensors, base=LLAMA, *, dtype="F32", raw=None, config_raw=None, **config):
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, **config}
        files = {name: self.path / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
        files[CONFIG_NAME].write_bytes(config_raw or json.dumps(config).encode())
        files[WEIGHTS_NAME].write_bytes(raw or safetensors(tensors, dtype))
        out = self.path / "out.gguf"
        for done, total in convert_adapter(files, base, out):
            assert 0 < done <= total
        return GGUFReader(out)

    def delta(self, tensors, base=LLAMA, **options):
        """What llama.cpp adds to the only weights that the adapter changes."""
        reader = self.convert(tensors, base, **options)
        (name,) = {tensor.name.rpartition(".")[0] for tensor in reader.tensors}
        a, b = (read(reader, f"{name}.lora_{letter}") for letter in "ab")
        alpha = reader.fields["adapter.lora.alpha"].contents()
        return name, alpha / b.shape[1] * b @ a


def read(reader, name):
    (tensor,) = (tensor for tensor in reader.tensors if tensor.name == name)
    return dequantize(tensor.data, tensor.tensor_type)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def product(tensors):
    a, b = tensors.values()
    return b @ a


def test_the_metadata_describes_the_adapter(folder):
    reader = folder.convert(matrices(UP))
    assert {name: field.contents() for name, field in reader.fields.items()}.items() >= {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }.items()
    assert [tensor.name for tensor in reader.tensors] == [
        "blk.1.ffn_up.weight.lora_a",
        "blk.1.ffn_up.weight.lora_b",
    ]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_the_change_of_the_weights_is_the_published_one_in_every_type(folder, dtype):
    tensors = matrices(UP)
    name, delta = folder.delta(tensors, dtype=dtype)
    assert name == "blk.1.ffn_up.weight"
    np.testing.assert_array_equal(delta, 8 / RANK * product(tensors))


def test_half_precision_is_kept(folder):
    for dtype, kept in (("F64", "F32"), ("F16", "F16"), ("BF16", "BF16")):
        types = {
            each.tensor_type.name for each in folder.convert(matrices(UP), dtype=dtype).tensors
        }
        assert types == {kept}


def test_rows_of_queries_and_keys_of_llama_follow_those_of_the_base(folder):
    """A head of 8 is published as halves 0-3 and 4-7, and rotated as pairs of neighbours."""
    tensors = matrices(Q)
    expected = 2 * product(tensors)
    order = [8 * head + at for head in (0, 1) for at in (0, 4, 1, 5, 2, 6, 3, 7)]
    assert not np.array_equal(expected[order], expected)
    np.testing.assert_array_equal(folder.delta(tensors)[1], expected[order])
    np.testing.assert_array_equal(folder.delta(tensors, QWEN)[1], expected)
    values = matrices(Q.replace("q_proj", "v_proj"))
    np.testing.assert_array_equal(folder.delta(values)[1], expected)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 3}, 0.75),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"up_proj": 16}}, 4.0),
        ({"alpha_pattern": {"down_proj": 16}}, 2.0),
        ({"alpha_pattern": {f"^{UP}": 16}}, 4.0),
        ({"alpha_pattern": {"^up_proj": 16}}, 2.0),
        ({"r": 16, "rank_pattern": {"up_proj": RANK}}, 2.0),
        ({"r": 16, "rank_pattern": {"up_proj": RANK}, "use_rslora": True}, 4.0),
        ({"alpha_pattern": {"up_proj": 2}, "use_rslora": True}, 1.0),
        ({"alpha_pattern": None, "rank_pattern": None, "use_rslora": None}, 2.0),
    ],
)
def test_the_scale_is_pefts(folder, config, scale):
    tensors = matrices(UP)
    _, delta = folder.delta(tensors, **config)
    np.testing.assert_allclose(delta, scale * product(tensors), rtol=1e-6)


def test_embeddings_are_stored_the_other_way_round(folder):
    a, b = numbers(RANK, 50, 1), numbers(WIDTH, RANK, 2)
    prefix = f"base_model.model.{EMBEDDINGS}.lora_embedding"
    reader = folder.convert({f"{prefix}_A": a, f"{prefix}_B": b})
    np.testing.assert_array_equal(read(reader, "token_embd.weight.lora_a"), a.T)
    np.testing.assert_array_equal(read(reader, "token_embd.weight.lora_b"), b)


def test_names_of_a_network_inside_another_are_found(folder):
    base = BaseModel(architecture="gemma3", layers=2, head=8)
    for prefix in ("model.language_model.", "language_model.model.", "model."):
        name, _ = folder.delta(matrices(f"{prefix}layers.1.mlp.up_proj"), base)
        assert name == "blk.1.ffn_up.weight"


@pytest.mark.parametrize(
    "name", [f"base_model.model.{UP}.lora_A.default.weight", f"{UP}.lora_A.weight"]
)
def test_other_spellings_of_names(folder, name):
    first, second = matrices(UP).items()
    tensors = {name: first[1], name.replace("lora_A", "lora_B"): second[1]}
    assert folder.delta(tensors)[0] == "blk.1.ffn_up.weight"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"bias": ["x"]}, "bias = "),
        ({"lora_bias": True, "use_dora": True}, "use_dora = True, lora_bias = True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights = 'pissa_niter_4'"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights = 'lora_ga'"),
        ({"init_lora_weights": "of_next_year"}, "init_lora_weights = 'of_next_year'"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora = {'nblocks': 2}"),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config ="),
        ({"use_of_next_year": True}, "use_of_next_year = True"),
        ({"ensure_weight_tying": True}, "ensure_weight_tying = True"),
        ({"peft_type": "IA3"}, "type 'IA3' are not supported"),
        ({"alpha_pattern": {"(a+)+$": 3}}, r"pattern '\(a\+\)\+\$', which is not supported"),
        ({"r": 0}, "not a valid rank"),
        ({"r": 10**400}, "not a valid rank"),
        ({"lora_alpha": 0}, "not a valid rank or alpha"),
        ({"lora_alpha": 1e-40}, "not a valid rank or alpha"),
        ({"alpha_pattern": {"x": -1}}, "not a valid rank or alpha"),
        ({"rank_pattern": {"x": 0}}, "not a valid rank or alpha"),
        ({"r": "many"}, "cannot be read"),
        ({"config_raw": b"{"}, "cannot be read"),
        ({"config_raw": b"[" * 100_000}, "cannot be read"),
        ({"config_raw": b"\xff"}, "cannot be read"),
        ({"config_raw": b"[]"}, "cannot be read"),
        ({"config_raw": b"{}"}, "cannot be read"),
        ({"config_raw": bytes(2 << 20)}, "larger than"),
    ],
)
def test_what_a_config_asks_for_in_vain_is_named(folder, config, named):
    with pytest.raises(BadRequest, match=named):
        folder.convert(matrices(UP), **config)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base_model.model.lm_head.modules_to_save.weight": numbers(4, 4)}, "modules_to_save"),
        ({f"base_model.model.{UP}.lora_magnitude_vector": numbers(4, 4)}, "magnitude_vector"),
        ({f"base_model.model.{UP}.lora_B.bias": numbers(4, 4)}, r"lora_B\.bias"),
        ({f"{Q}.lora_A.weight": numbers(4, 16)}, "no matrix B for 'model.layers.0"),
        ({f"{Q}.lora_B.weight": numbers(16, 4)}, "no matrix A for 'model.layers.0"),
        ({f"{Q}.lora_A.weight": numbers(4, 16), f"{Q}.lora_A": numbers(4, 16)}, "several matr"),
        (matrices("model.layers.7.mlp.up_proj"), "layers.7.mlp.up_proj', which the base"),
        (matrices("model.layers.0.mlp.experts.3.up_proj"), "experts.3.up_proj', which the base"),
        (matrices("vision_tower.layers.0.self_attn.q_proj"), "vision_tower"),
        (matrices(UP.removeprefix("model.")), "'blk.1.ffn_up' twice"),
        (matrices(EMBEDDINGS), "embed_tokens"),
        (matrices(Q, rank=8), "ranks 8 and 8, but adapter_config.json has 4"),
        ({f"{Q}.lora_A": numbers(4, 8), f"{Q}.lora_B": numbers(16, 8)}, "ranks 4 and 8"),
        ({f"{Q}.lora_A": [1, 2], f"{Q}.lora_B": numbers(16, 4)}, "impossible shape"),
        ({f"{Q}.lora_A": np.zeros((4, 0)), f"{Q}.lora_B": numbers(16, 4)}, "impossible shape"),
        (matrices(Q, rows=12), "12 rows, which are not heads of 8"),
    ],
)
def test_weights_that_are_no_plain_lora_are_named(folder, change, named):
    with pytest.raises(BadRequest, match=named):
        folder.convert(matrices(UP) | change)


def test_an_empty_adapter_is_refused(folder):
    with pytest.raises(BadRequest, match="empty"):
        folder.convert({})


@pytest.mark.parametrize(
    "base",
    [
        BaseModel(architecture="mamba", layers=2, head=8),
        BaseModel(architecture="bert", layers=2, head=8),
        BaseModel(architecture="", layers=2, head=8),
        BaseModel(architecture="llama", layers=1 << 40, head=8),
        BaseModel(architecture="llama", layers=0, head=8),
        BaseModel(architecture="llama", layers=2, head=0),
        BaseModel(architecture="llama", layers=2, head=-8),
    ],
)
def test_a_base_that_cannot_be_converted_for(folder, base):
    with pytest.raises(BadRequest, match="model"):
        folder.convert(matrices(Q), base)


def test_shapes_that_lie_are_refused(folder):
    raw = safetensors(matrices(UP))
    with pytest.raises(BadRequest, match="does not match its shape"):
        folder.convert({}, raw=raw.replace(b"[4, 16]", b"[9, 16]"))
    with pytest.raises(BadRequest, match="truncated"):
        folder.convert({}, raw=raw[:-1])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_converted_but_nothing_else(tmp_path_factory, data):
    """A few bytes of either file replaced: any outcome but BadRequest and a whole file is a bug."""
    folder = Folder(tmp_path_factory.mktemp("damaged"))
    raw = bytearray(safetensors(matrices(Q)))
    config = bytearray(json.dumps({"r": RANK, "lora_alpha": 8, "rank_pattern": {}}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        target = data.draw(st.sampled_from([raw, config]))
        target[data.draw(st.integers(0, min(len(target), 400) - 1))] = data.draw(
            st.integers(0, 255)
        )
    with contextlib.suppress(BadRequest):
        folder.convert({}, raw=bytes(raw), config_raw=bytes(config))
