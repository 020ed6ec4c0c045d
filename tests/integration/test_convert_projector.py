"""The image encoder of Gemma 3: converted, loaded, and compared with its definition in numpy."""

# ruff: noqa: E501  # a table of refusals

import json
import struct

import numpy as np
import pytest

from ollama_async.convert.projector import convert_projector, has_projector
from ollama_async.core.errors import BadRequest
from ollama_async.native.tiny_model import write_tiny_model
from tests.integration.llama_engine.media_harness import open_vision_engine
from tests.media_files import noise

HIDDEN, INNER, HEADS, LAYERS, PATCH, SIZE, WIDTH = 16, 24, 2, 2, 4, 16, 64
SIDE = SIZE // PATCH
CONFIG = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "mm_tokens_per_image": 4,
    "text_config": {"hidden_size": WIDTH},
    "vision_config": {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "patch_size": PATCH,
        "image_size": SIZE,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
    },
}


def published(*, prefix="vision_tower.vision_model."):
    random = np.random.default_rng(5)

    def numbers(*shape):
        scale = np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 4
        return (random.standard_normal(shape) / scale).astype(np.float32)

    weights = {
        "embeddings.patch_embedding.weight": numbers(HIDDEN, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": numbers(HIDDEN),
        "embeddings.position_embedding.weight": numbers(SIDE * SIDE, HIDDEN),
        "post_layernorm.weight": 1 + numbers(HIDDEN),
        "post_layernorm.bias": numbers(HIDDEN),
        "head.probe": numbers(1, 1, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}."
        for name in ("layer_norm1", "layer_norm2"):
            weights[f"{at}{name}.weight"] = 1 + numbers(HIDDEN)
            weights[f"{at}{name}.bias"] = numbers(HIDDEN)
        shapes = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "out")}
        shapes |= {"mlp.fc1": (INNER, HIDDEN), "mlp.fc2": (HIDDEN, INNER)}
        for name, shape in shapes.items():
            weights[f"{at}{name}.weight"] = numbers(*shape)
            weights[f"{at}{name}.bias"] = numbers(shape[0])
    return {f"{prefix}{name}": values for name, values in weights.items()} | {
        "multi_modal_projector.mm_input_projection_weight": numbers(HIDDEN, WIDTH),
        "multi_modal_projector.mm_soft_emb_norm.weight": numbers(HIDDEN),
        "language_model.model.norm.weight": numbers(WIDTH),
    }


def write_folder(folder, weights, config=CONFIG):
    """As published. The files by name."""
    header, data = {}, b""
    for name, values in weights.items():
        end = len(data) + values.nbytes
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), end]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    return {path.name: path for path in folder.iterdir()}


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def embeddings_of(pixels, published_weights):
    """By the definition in transformers: SiglipVisionModel, then Gemma3MultiModalProjector."""
    weights = {
        name.removeprefix("vision_tower.vision_model."): values
        for name, values in published_weights.items()
    }
    image = (pixels / 255 - 0.5) / 0.5
    patches = (
        image.reshape(SIDE, PATCH, SIDE, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(SIDE * SIDE, -1)
    )
    x = patches @ weights["embeddings.patch_embedding.weight"].reshape(HIDDEN, -1).T
    x = x + weights["embeddings.patch_embedding.bias"]
    x = x + weights["embeddings.position_embedding.weight"]
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}."
        h = norm(x, weights, f"{at}layer_norm1")
        q, k, v = (
            linear(h, weights, f"{at}self_attn.{name}_proj")
            .reshape(-1, HEADS, HIDDEN // HEADS)
            .transpose(1, 0, 2)
            for name in "qkv"
        )
        scores = q @ k.transpose(0, 2, 1) / (HIDDEN // HEADS) ** 0.5
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ v).transpose(1, 0, 2).reshape(-1, HIDDEN)
        x = x + linear(mixed, weights, f"{at}self_attn.out_proj")
        h = linear(norm(x, weights, f"{at}layer_norm2"), weights, f"{at}mlp.fc1")
        h = 0.5 * h * (1 + np.tanh((2 / np.pi) ** 0.5 * (h + 0.044715 * h**3)))
        x = x + linear(h, weights, f"{at}mlp.fc2")
    x = norm(x, weights, "post_layernorm")
    pooled = x.reshape(2, SIDE // 2, 2, SIDE // 2, HIDDEN).mean((1, 3)).reshape(4, HIDDEN)
    scale = np.sqrt((pooled**2).mean(-1, keepdims=True) + 1e-6)
    soft = pooled / scale * (1 + weights["multi_modal_projector.mm_soft_emb_norm.weight"])
    return soft @ weights["multi_modal_projector.mm_input_projection_weight"]


@pytest.mark.engine
def test_a_converted_encoder_computes_what_is_defined(tmp_path):
    weights = published()
    files = write_folder(tmp_path, weights)
    assert has_projector(files)
    progress = list(convert_projector(files, tmp_path / "mmproj.gguf"))
    assert progress[-1][0] == progress[-1][1]

    model = write_tiny_model(tmp_path / "tiny.gguf", width=WIDTH)
    engine = open_vision_engine(model, tmp_path / "mmproj.gguf")
    try:
        pixels = noise(width=SIZE, height=SIZE)
        (piece,) = engine.projector.encode(pixels)
    finally:
        engine.close()
    expected = embeddings_of(pixels, weights)
    assert piece.vectors.shape == expected.shape
    assert np.abs(piece.vectors - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("prefix", ["model.vision_tower.vision_model.", "vision_tower."])
def test_names_of_other_releases_are_known(tmp_path, prefix):
    files = write_folder(tmp_path, published(prefix=prefix))
    assert list(convert_projector(files, tmp_path / "mmproj.gguf"))


def test_a_model_without_an_encoder_has_no_projector(tmp_path):
    text = {"language_model.model.norm.weight": np.ones(4, np.float32)}
    assert not has_projector(write_folder(tmp_path, text))
    other = CONFIG | {"architectures": ["LlamaForCausalLM"]}
    assert not has_projector(write_folder(tmp_path, published(), other))


def changed(name, value):
    weights = published()
    found = next(each for each in weights if name in each)
    if value is None:
        del weights[found]
    else:
        weights[found] = value
    return weights


WRONG = {
    "missing": (changed("layers.1.mlp.fc2.bias", None), CONFIG, "v.blk.1.ffn_down.bias are missing"),
    "shape": (changed("layers.1.mlp.fc2.bias", np.ones(3, np.float32)), CONFIG, r"has the shape \[3\], not \[16\]"),
    "unknown": (published() | {"vision_tower.more": np.ones(3, np.float32)}, CONFIG, "is unknown"),
    "layer": (published() | {"vision_tower.encoder.layers.7.layer_norm1.bias": np.ones(16, np.float32)}, CONFIG, "is unknown"),
    "tokens": (published(), CONFIG | {"mm_tokens_per_image": 9}, "do not make its tokens"),
    "activation": (published(), CONFIG | {"vision_config": CONFIG["vision_config"] | {"hidden_act": "relu"}}, "hidden_act"),
    "heads": (published(), CONFIG | {"vision_config": CONFIG["vision_config"] | {"num_attention_heads": 3}}, "do not divide"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_other_encoders_are_refused(tmp_path, wrong):
    weights, config, reason = WRONG[wrong]
    files = write_folder(tmp_path, weights, config)
    with pytest.raises(BadRequest, match=reason):
        list(convert_projector(files, tmp_path / "mmproj.gguf"))
