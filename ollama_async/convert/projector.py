"""Converts the image encoder of published safetensors into a projector, a GGUF file of its own.

So far that of Gemma 3: SigLIP, a pool, a norm and a matrix. Its parts have the names and the types
that llama.cpp's own conversion gives them. Other models with an encoder do not convert at all, see
:mod:`.architectures`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ollama_async.convert.config_files import Files, JsonObject, read_object
from ollama_async.convert.gguf_writer import FILE_TYPES, FloatType, OutputTensor, write
from ollama_async.convert.safetensors import Floats, Weights
from ollama_async.convert.tensor_mapping import published_type
from ollama_async.core.errors import BadRequest

_ARCHITECTURES = {"Gemma3ForConditionalGeneration"}
_PREFIX = re.compile(r"(?:model\.)?(?:vision_tower\.(?:vision_model\.)?|(multi_modal_projector\.))")
_HEAD = "head."
"""Begins names of SigLIP's classifier, which the model does not use."""
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_LAYER_PARTS = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_NAMES = {
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "post_layernorm.weight": "v.post_ln.weight",
    "post_layernorm.bias": "v.post_ln.bias",
    "mm_input_projection_weight": "mm.input_projection.weight",
    "mm_soft_emb_norm.weight": "mm.soft_emb_norm.weight",
}
_PROJECTION, _SOFT_NORM = "mm.input_projection.weight", "mm.soft_emb_norm.weight"
_F32 = ("v.patch_embd.weight", "v.position_embd.weight")

_MAX_LAYERS = 512
_BLOCK_ELEMENTS = 4 << 20

Shape = tuple[int, ...]


def has_projector(files: Files) -> bool:
    """Whether :func:`convert_projector` has something to convert: the weights of an encoder."""
    config = read_object(files, "config.json")
    if config is None or _ARCHITECTURES.isdisjoint(config.items("architectures", [])):
        return False
    with Weights(files) as weights:
        return any(_PREFIX.match(name) for name in weights.tensors)


def convert_projector(files: Files, out: Path) -> Iterator[tuple[int, int]]:
    """As :func:`.convert_model`, for the projector. Matrices are BF16 if published so, else F16.

    :raises BadRequest: the files are invalid or not supported.
    :raises OSError: a file cannot be read, or ``out`` not be written.
    """
    config = read_object(files, "config.json") or JsonObject("config.json", {})
    vision, text = config.nested("vision_config"), config.nested("text_config")
    with Weights(files) as weights:
        kind = published_type(weights)
        shapes = _shapes(vision, text.count("hidden_size"))
        tensors = _tensors(weights, shapes, kind)
        fields = {
            "general.type": "mmproj",
            "general.file_type": int(FILE_TYPES[kind]),
            **{f"clip.{key}": value for key, value in _fields(files, config, vision, text).items()},
        }
        yield from write(out, "clip", fields, tensors)


def _fields(
    files: Files, config: JsonObject, vision: JsonObject, text: JsonObject
) -> dict[str, Any]:
    side = vision.count("image_size") // vision.count("patch_size")
    tokens = math.isqrt(config.count("mm_tokens_per_image", 256))
    if tokens < 1 or side % tokens:
        raise BadRequest(f"{config.where}: the patches of an image do not make its tokens")
    pixels = read_object(files, "preprocessor_config.json") or JsonObject("", {})
    return {
        "has_vision_encoder": True,
        "projector_type": "gemma3",
        "use_gelu": True,
        "vision.image_size": vision.count("image_size"),
        "vision.patch_size": vision.count("patch_size"),
        "vision.embedding_length": vision.count("hidden_size"),
        "vision.feed_forward_length": vision.count("intermediate_size"),
        "vision.block_count": vision.count("num_hidden_layers"),
        "vision.attention.head_count": vision.count("num_attention_heads"),
        "vision.attention.layer_norm_epsilon": vision.number("layer_norm_eps", 1e-6),
        "vision.projection_dim": text.count("hidden_size"),
        "vision.projector.scale_factor": side // tokens,
        "vision.image_mean": _colours(pixels, "image_mean"),
        "vision.image_std": _colours(pixels, "image_std"),
    }


def _colours(pixels: JsonObject, name: str) -> list[float]:
    """Three numbers; SigLIP's by default."""
    if name not in pixels.values:
        return [0.5, 0.5, 0.5]
    numbers = pixels.numbers(name)
    if len(numbers) != 3:  # red, green and blue
        raise BadRequest(f"{pixels.where}: {name} has {len(numbers)} numbers, not three")
    return numbers


def _shapes(vision: JsonObject, width: int) -> dict[str, Shape]:
    """All tensors by their names in GGUF. llama.cpp aborts on other shapes."""
    layers = vision.count("num_hidden_layers")
    if layers > _MAX_LAYERS:
        raise BadRequest(f"{vision.where}: more than {_MAX_LAYERS} layers")
    if vision.text("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise vision.unsupported("hidden_act", "only gelu_pytorch_tanh converts")
    size, patch = vision.count("image_size"), vision.count("patch_size")
    hidden, inner = vision.count("hidden_size"), vision.count("intermediate_size")
    if hidden % vision.count("num_attention_heads") or size % patch:
        raise BadRequest(f"{vision.where}: the sizes do not divide each other")
    shapes: dict[str, Shape] = {
        "v.patch_embd.weight": (hidden, 3, patch, patch),
        "v.patch_embd.bias": (hidden,),
        "v.position_embd.weight": ((size // patch) ** 2, hidden),
        "v.post_ln.weight": (hidden,),
        "v.post_ln.bias": (hidden,),
        _PROJECTION: (hidden, width),
        _SOFT_NORM: (hidden,),
    }
    matrices = {"ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
    for layer in range(layers):
        for part in _LAYER_PARTS.values():
            square = (hidden, hidden) if part.startswith("attn") else (hidden,)
            shape = matrices.get(part, square)
            shapes[f"v.blk.{layer}.{part}.weight"] = shape
            shapes[f"v.blk.{layer}.{part}.bias"] = shape[:1]
    return shapes


def _tensors(weights: Weights, shapes: dict[str, Shape], kind: FloatType) -> list[OutputTensor]:
    """:raises BadRequest: a tensor is missing, unknown, or of another shape."""
    found: dict[str, str] = {}
    for name in weights.tensors:
        prefix = _PREFIX.match(name)
        if prefix is not None and not name.startswith(_HEAD, prefix.end()):
            found[_gguf_name(name, name[prefix.end() :])] = name
    if missing := sorted(shapes.keys() - found.keys()):
        raise BadRequest(f"the tensors for {', '.join(missing[:3])} are missing")
    if unknown := sorted(found.keys() - shapes.keys()):
        raise BadRequest(f"tensor {found[unknown[0]][:80]!r} is unknown in such an encoder")
    for out, name in found.items():
        shape = weights.tensors[name].shape
        if shape != shapes[out]:
            raise BadRequest(
                f"tensor {name[:80]!r} has the shape {list(shape)}, not {list(shapes[out])}"
            )
    return [
        OutputTensor(
            out, shapes[out], _type(out, shapes[out], kind), partial(_blocks, weights, name, out)
        )
        for out, name in found.items()
    ]


def _gguf_name(published: str, name: str) -> str:
    layer = _LAYER.fullmatch(name)
    part = _LAYER_PARTS.get(layer[2]) if layer else None
    out = f"v.blk.{int(layer[1])}.{part}.{layer[3]}" if layer and part else _NAMES.get(name)
    if out is None:
        raise BadRequest(f"tensor {published[:80]!r} is unknown in such an encoder")
    return out


def _type(out: str, shape: Shape, kind: FloatType) -> FloatType:
    """The library transposes the projection, which it cannot do with BF16."""
    if len(shape) == 1 or out in _F32:
        return "F32"
    return "F16" if out == _PROJECTION else kind


def _blocks(weights: Weights, name: str, out: str) -> Iterator[Floats]:
    shape = weights.tensors[name].shape
    step = max(1, _BLOCK_ELEMENTS // math.prod(shape[1:]))
    for start in range(0, shape[0], step):
        rows = weights.read(name, start, min(start + step, shape[0]))
        yield rows + 1 if out == _SOFT_NORM else rows  # published minus one, as all of Gemma's
