"""Makes the GGUF's tensors from the published ones: names (``model.layers.0.self_attn…`` to
``blk.0.attn_q``), shapes, and changes to rows.

The ``gguf`` package translates the names. Shapes and biases must match the configuration:
transformers rejects or ignores others, but llama.cpp uses them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ollama_async.convert import rope
from ollama_async.convert.architectures import (
    ModelArchitecture,
    head_dimensions,
    rope_dimensions,
)
from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.gguf_writer import FloatType, OutputTensor
from ollama_async.convert.safetensors import Floats, Weights
from ollama_async.core.errors import BadRequest

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
_MAX_LAYERS = 512  # llama.cpp's own limit
_BLOCK_ELEMENTS = 4 << 20  # a few of these are in memory at once, 4 bytes each
_MAX_BLOCK_ELEMENTS = 16 * _BLOCK_ELEMENTS
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
_LEFT_OUT = ("rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
_OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}


def published_type(weights: Weights) -> FloatType:
    """BF16 if most of the numbers are BF16, otherwise F16."""
    sizes = {"BF16": 0, "other": 0}
    for tensor in weights.tensors.values():
        sizes["BF16" if tensor.dtype == "BF16" else "other"] += tensor.size_bytes
    return "BF16" if sizes["BF16"] > sizes["other"] else "F16"


def make_tensors(
    architecture: ModelArchitecture, config: JsonObject, weights: Weights, kind: FloatType
) -> list[OutputTensor]:
    """All tensors of the model, in the order of the published files.

    :raises BadRequest: a tensor is unknown, duplicate, or missing in a layer.
    """
    layers = config.count("num_hidden_layers")
    if layers > _MAX_LAYERS:
        raise BadRequest(f"{config.where}: more than {_MAX_LAYERS} layers")
    names = _names(architecture, layers, list(weights.tensors))
    if config.flag("tie_word_embeddings", default=False):
        names = {name: out for name, out in names.items() if out != OUTPUT}
    _check_complete(architecture, config, set(names.values()), layers)
    head = head_dimensions(config)
    tensors = [
        _converted(architecture, weights, name, out, kind, head) for name, out in names.items()
    ]
    _check_shapes(architecture, config, head, {tensor.name: tensor.shape for tensor in tensors})
    if not architecture.is_embedding:
        tensors += [
            OutputTensor(name, numbers.shape, "F32", partial(iter, [numbers]))
            for name, numbers in rope.tensors(config, rope_dimensions(config)).items()
        ]
    return tensors


def _names(
    architecture: ModelArchitecture, layers: int, published: Sequence[str]
) -> dict[str, str]:
    """Published names to GGUF names, for the tensors of the GGUF."""
    known = architecture.tensor_names(layers)
    names: dict[str, str] = {}
    for name in published:
        inner = architecture.canonical_name(name)
        for old, new in _OLD_ENDINGS.items():
            if inner.endswith(old):
                inner = inner.removesuffix(old) + new
        if inner.startswith(architecture.unused) or inner.endswith(_LEFT_OUT):
            continue
        out = known.get_name(inner, try_suffixes=(".weight", ".bias"))
        if out is None:
            raise BadRequest(f"tensor {name[:80]!r} is unknown in models of this architecture")
        names[name] = out
    if len(set(names.values())) < len(names):
        raise BadRequest("two tensors have the same GGUF name")
    return names


def _check_complete(
    architecture: ModelArchitecture, config: JsonObject, names: set[str], layers: int
) -> None:
    """Every layer has the tensors of the first one, and there are embeddings and outputs."""
    required = {EMBEDDING}
    if config.values.get("tie_word_embeddings") is False and not architecture.is_embedding:
        required |= {OUTPUT}  # without it llama.cpp would use the embeddings
    pattern = [name.removeprefix("blk.0.") for name in names if name.startswith("blk.0.")]
    required |= {f"blk.{layer}.{name}" for layer in range(layers) for name in pattern}
    if not pattern or required - names:
        missing = sorted(required - names) or ["blk.0"]
        raise BadRequest(f"the tensors for {', '.join(missing[:3])} are missing")


def _converted(
    architecture: ModelArchitecture,
    weights: Weights,
    name: str,
    out: str,
    kind: FloatType,
    head: int,
) -> OutputTensor:
    shape = weights.tensors[name].shape
    if not 1 <= len(shape) <= 2 or not all(shape):
        raise BadRequest(f"tensor {name[:80]!r} has an unusual shape, {list(shape)}")
    fitting = _BLOCK_ELEMENTS // math.prod(shape[1:])
    step = max(head, fitting // head * head)  # whole heads
    if step * math.prod(shape[1:]) > _MAX_BLOCK_ELEMENTS:
        raise BadRequest(f"tensor {name[:80]!r} has heads or rows that are too large")

    def blocks() -> Iterator[Floats]:
        for start in range(0, shape[0], step):
            rows = weights.read(name, start, min(start + step, shape[0]))
            yield architecture.changed(name, rows, head)

    small = len(shape) == 1 or out in _ALWAYS_F32
    return OutputTensor(out, shape, "F32" if small else kind, blocks)


Shape = tuple[int, ...]
_LAYER = re.compile(r"blk\.\d+\.(\w+)\.(weight|bias)")


def _check_shapes(
    architecture: ModelArchitecture, config: JsonObject, head: int, shapes: Mapping[str, Shape]
) -> None:
    """``shapes`` by GGUF name. :raises BadRequest: a wrong shape, or a bias too many."""
    weight_shapes = _weight_shapes(architecture, config, head)
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            continue
        part, kind = match.groups()
        if kind == "bias" and not part.endswith("norm"):
            _check_bias(architecture, config, name, part)
        expected = weight_shapes.get(part)
        if expected is None:
            continue
        expected = expected if kind == "weight" else expected[:1]
        if shape != expected:
            heads = part.startswith(("attn_q", "attn_k", "attn_v")) and shape[0] % head
            what = f"not heads of {head}" if heads else f"not {list(expected)}"
            raise BadRequest(f"{config.where}: tensor {name!r} has the shape {list(shape)}, {what}")
    if not architecture.is_embedding and rope_dimensions(config) % 2:
        raise BadRequest(f"{config.where}: the rotated dimensions of a head are not pairs")


def _check_bias(architecture: ModelArchitecture, config: JsonObject, name: str, part: str) -> None:
    option = architecture.biases.get(part)
    if option is None:
        raise BadRequest(f"{config.where}: {name!r} is a bias that such a network does not have")
    if option and not config.flag(option, default=False):
        raise BadRequest(f'{config.where}: "{option}" is off, but {name!r} exists')


def _weight_shapes(
    architecture: ModelArchitecture, config: JsonObject, head: int
) -> dict[str, Shape]:
    width, inner = config.count("hidden_size"), config.count("intermediate_size")
    queries = head * config.count("num_attention_heads")
    keys = head * config.count("num_key_value_heads", config.count("num_attention_heads"))
    return {
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_qkv": (queries + 2 * keys, width),
        "attn_output": (width, queries),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (architecture.ffn_up_multiple * inner, width),
        "ffn_down": (width, inner),
    }
