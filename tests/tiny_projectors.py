"""Writes tiny projectors with random weights as GGUF, one of each kind that needs care.

- ``gemma3``: an image is 16 tokens, evaluated without a causal mask.
- ``llava``: 16 tokens, causal; the projector has no tokens of its own around them.
- ``qwen2.5vl``: one token for each 4 by 4 pixels; positions have two dimensions, so a model takes
  fewer positions than tokens.
- ``ultravox``: each 30 seconds of a recording are 375 tokens.

They fit text models of the same ``width``, written by :mod:`ollama_async.native.tiny_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

from ollama_async.native.tiny_model import write_tiny_model

Kind = Literal["gemma3", "llava", "qwen2.5vl", "ultravox"]

MARKS = {
    "gemma3": ("<start_of_image>", "<end_of_image>"),
    "llava": (),
    "qwen2.5vl": ("<|vision_start|>", "<|vision_end|>"),
    "ultravox": (),
}
"""Control tokens that the library puts around an image."""

_HIDDEN, _FEED_FORWARD, _LAYERS, _HEADS = 32, 64, 2, 2

_TYPES = {"gemma3": "gemma3", "llava": "mlp", "qwen2.5vl": "qwen2.5vl_merger"}


def write_vision_model(folder: Path, kind: Kind = "gemma3", **options: Any) -> tuple[Path, Path]:
    """A text model and a projector that fits it."""
    model = folder / "model.gguf"
    given: dict[str, Any] = {"control_tokens": MARKS[kind], **options}
    if kind == "qwen2.5vl":  # heads of 16: four sections of pairs
        sections = {"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
        given |= {"architecture": "qwen2vl", "metadata": sections | given.get("metadata", {})}
    write_tiny_model(model, **given)
    return model, write_projector(folder / "mmproj.gguf", kind, width=given.get("width", 64))


def write_projector(
    path: Path,
    kind: Kind = "gemma3",
    *,
    width: int = 64,
    seed: int = 0,
    typed: bool = True,
    stack: int = 4,
) -> Path:
    """``width``: of the text model's embeddings. ``typed``: the file says of what type it is.
    ``stack``: frames of a recording that become one.
    """
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> NDArray[np.float32]:
        scale = np.float32(np.prod(shape[1:]) ** 0.5)
        return random.standard_normal(shape, dtype=np.float32) / scale

    hears = kind == "ultravox"
    tensors = _audio(matrix, width, stack) if hears else _vision(kind, matrix, width)
    writer = GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_file_type(0)
    fields = _audio_fields(width, stack) if hears else _vision_fields(kind, width)
    for key, value in fields.items():
        if typed or key != "projector_type":
            _add(writer, f"clip.{key}", value)
    for name, weights in tensors.items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        add[type(value)](key, value)


def _encoder_fields(name: str, width: int) -> dict[str, Any]:
    return {
        f"{name}.embedding_length": _HIDDEN,
        f"{name}.feed_forward_length": _FEED_FORWARD,
        f"{name}.block_count": _LAYERS,
        f"{name}.attention.head_count": _HEADS,
        f"{name}.attention.layer_norm_epsilon": 1e-6,
        f"{name}.projection_dim": width,
    }


def _vision_fields(kind: Kind, width: int) -> dict[str, Any]:
    is_qwen = kind == "qwen2.5vl"
    fields: dict[str, Any] = {
        "has_vision_encoder": True,
        "projector_type": _TYPES[kind],
        **_encoder_fields("vision", width),
        "vision.image_size": 32 if is_qwen else 8,
        "vision.patch_size": 2,
        "vision.image_mean": [0.5, 0.5, 0.5],
        "vision.image_std": [0.5, 0.5, 0.5],
        "use_silu" if is_qwen else "use_gelu": True,
    }
    if kind == "gemma3":
        fields["vision.projector.scale_factor"] = 1
    if is_qwen:
        fields["vision.n_wa_pattern"] = 2
    return fields


def _layers(prefix: str, matrix: Any, *, biases: bool, gated: bool, k_bias: bool) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    ones, zeros = np.ones(_HIDDEN, np.float32), np.zeros(_HIDDEN, np.float32)
    for layer in range(_LAYERS):
        block = f"{prefix}.blk.{layer}"
        for name in ("ln1", "ln2"):
            tensors[f"{block}.{name}.weight"] = ones
            if biases:
                tensors[f"{block}.{name}.bias"] = zeros
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors[f"{block}.{name}.weight"] = matrix(_HIDDEN, _HIDDEN)
            if name != "attn_k" or k_bias:
                tensors[f"{block}.{name}.bias"] = zeros
        names = ("ffn_up", "ffn_gate") if gated else ("ffn_up",)
        for name in names:
            tensors[f"{block}.{name}.weight"] = matrix(_FEED_FORWARD, _HIDDEN)
            tensors[f"{block}.{name}.bias"] = np.zeros(_FEED_FORWARD, np.float32)
        tensors[f"{block}.ffn_down.weight"] = matrix(_HIDDEN, _FEED_FORWARD)
        tensors[f"{block}.ffn_down.bias"] = zeros
    return tensors


def _vision(kind: Kind, matrix: Any, width: int) -> dict[str, NDArray[np.float32]]:
    is_qwen = kind == "qwen2.5vl"
    tensors = _layers("v", matrix, biases=not is_qwen, gated=is_qwen, k_bias=True)
    tensors["v.patch_embd.weight"] = matrix(_HIDDEN, 3, 2, 2)
    tensors["v.post_ln.weight"] = np.ones(_HIDDEN, np.float32)
    if is_qwen:
        merged = 4 * _HIDDEN
        tensors |= {
            "v.patch_embd.weight.1": matrix(_HIDDEN, 3, 2, 2),
            "mm.0.weight": matrix(merged, merged),
            "mm.0.bias": np.zeros(merged, np.float32),
            "mm.2.weight": matrix(width, merged),
            "mm.2.bias": np.zeros(width, np.float32),
        }
        return tensors
    tensors["v.post_ln.bias"] = np.zeros(_HIDDEN, np.float32)
    if kind == "gemma3":
        tensors |= {
            "v.patch_embd.bias": np.zeros(_HIDDEN, np.float32),
            "v.position_embd.weight": matrix(16, _HIDDEN),
            "mm.input_projection.weight": matrix(_HIDDEN, width),
            "mm.soft_emb_norm.weight": np.ones(_HIDDEN, np.float32),
        }
        return tensors
    return tensors | {
        "v.class_embd": matrix(_HIDDEN),
        "v.position_embd.weight": matrix(17, _HIDDEN),
        "v.pre_ln.weight": np.ones(_HIDDEN, np.float32),
        "v.pre_ln.bias": np.zeros(_HIDDEN, np.float32),
        "mm.0.weight": matrix(width, _HIDDEN),
        "mm.0.bias": np.zeros(width, np.float32),
        "mm.2.weight": matrix(width, width),
        "mm.2.bias": np.zeros(width, np.float32),
    }


_MEL_BINS, _FRAMES = 80, 1500


def _audio_fields(width: int, stack: int) -> dict[str, Any]:
    return {
        "has_audio_encoder": True,
        "projector_type": "ultravox",
        **_encoder_fields("audio", width),
        "audio.num_mel_bins": _MEL_BINS,
        "audio.projector.stack_factor": stack,
    }


def _audio(matrix: Any, width: int, stack: int) -> dict[str, NDArray[np.float32]]:
    stacked, inner = stack * _HIDDEN, 2 * width
    return _layers("a", matrix, biases=True, gated=False, k_bias=False) | {
        "a.conv1d.1.weight": matrix(_HIDDEN, _MEL_BINS, 3).astype(np.float16),
        "a.conv1d.1.bias": np.zeros((_HIDDEN, 1), np.float32),
        "a.conv1d.2.weight": matrix(_HIDDEN, _HIDDEN, 3).astype(np.float16),
        "a.conv1d.2.bias": np.zeros((_HIDDEN, 1), np.float32),
        "a.position_embd.weight": matrix(_FRAMES, _HIDDEN),
        "a.post_ln.weight": np.ones(_HIDDEN, np.float32),
        "a.post_ln.bias": np.zeros(_HIDDEN, np.float32),
        "mm.a.norm_pre.weight": np.ones(stacked, np.float32),
        "mm.a.mlp.1.weight": matrix(inner, stacked),
        "mm.a.norm_mid.weight": np.ones(inner // 2, np.float32),
        "mm.a.mlp.2.weight": matrix(width, inner // 2),
    }
