"""Which tensors the GGUF gets, under which names, and how each is made of the published ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import gguf
import msgspec

from ollama_async.convert import rope
from ollama_async.convert.architectures import Change, Family, head_dimensions, rope_dimensions
from ollama_async.convert.config_files import Document
from ollama_async.convert.safetensors import Floats
from ollama_async.convert.shapes import check_tensors
from ollama_async.convert.weights import Weights
from ollama_async.core.errors import BadRequest

Kind = Literal["F32", "F16", "BF16"]

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
_MAX_LAYERS = 512  # llama.cpp's own limit
_BLOCK_ELEMENTS = 4 << 20  # a few of these are in memory at once, 4 bytes each
_MAX_BLOCK_ELEMENTS = 16 * _BLOCK_ELEMENTS
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
_LEFT_OUT = ("rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}


class OutTensor(msgspec.Struct, frozen=True):
    """``shape`` as numpy has it; ``blocks`` reads the numbers, a bounded number of rows at once."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    blocks: Callable[[], Iterator[Floats]]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def published_kind(weights: Weights) -> Kind:
    """BF16 if most of the numbers are, so that nothing is lost; else F16, half of F32's bytes."""
    sizes = {"BF16": 0, "other": 0}
    for tensor in weights.tensors.values():
        sizes["BF16" if tensor.dtype == "BF16" else "other"] += tensor.size_bytes
    return "BF16" if sizes["BF16"] > sizes["other"] else "F16"


def network(family: Family, config: Document, weights: Weights, kind: Kind) -> list[OutTensor]:
    """All tensors of the model, in the order of the published files.

    :raises BadRequest: a tensor is unknown, there twice, or missing in a layer.
    """
    layers = config.count("num_hidden_layers")
    if layers > _MAX_LAYERS:
        raise BadRequest(f"{config.where}: more than {_MAX_LAYERS} layers")
    names = _names(family, layers, list(weights.tensors))
    if config.flag("tie_word_embeddings", default=False):
        names = {name: out for name, out in names.items() if out != OUTPUT}
    _check_complete(family, config, set(names.values()), layers)
    head = head_dimensions(config)
    tensors = [_converted(family, weights, name, out, kind, head) for name, out in names.items()]
    check_tensors(family, config, head, {tensor.name: tensor.shape for tensor in tensors})
    if not family.is_embedding:
        tensors += _made(rope.tensors(config, rope_dimensions(config)))
    return tensors


def _names(family: Family, layers: int, published: Sequence[str]) -> dict[str, str]:
    """Published name to the one in the GGUF, of the tensors that are wanted."""
    architecture = next(
        number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture
    )
    known = gguf.get_tensor_name_map(architecture, layers)
    names: dict[str, str] = {}
    for name in published:
        inner = _without_prefix(family, name)
        if inner.startswith(family.unused) or inner.endswith(_LEFT_OUT):
            continue
        out = known.get_name(inner, try_suffixes=(".weight", ".bias"))
        if out is None:
            raise BadRequest(f"tensor {name[:80]!r} is unknown in models of this architecture")
        names[name] = out
    if len(set(names.values())) < len(names):
        raise BadRequest("two tensors mean the same")
    return names


def _without_prefix(family: Family, name: str) -> str:
    for old, new in family.prefixes.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _check_complete(family: Family, config: Document, names: set[str], layers: int) -> None:
    """Every layer has what the first one has, and the ends of the network are there."""
    wanted = {EMBEDDING}
    if config.values.get("tie_word_embeddings") is False and not family.is_embedding:
        wanted |= {OUTPUT}  # else llama.cpp would take the embeddings without a word
    pattern = [name.removeprefix("blk.0.") for name in names if name.startswith("blk.0.")]
    wanted |= {f"blk.{layer}.{name}" for layer in range(layers) for name in pattern}
    if not pattern or wanted - names:
        missing = sorted(wanted - names) or ["blk.0"]
        raise BadRequest(f"the tensors for {', '.join(missing[:3])} are missing")


def _converted(
    family: Family, weights: Weights, name: str, out: str, kind: Kind, head: int
) -> OutTensor:
    shape = weights.tensors[name].shape
    if not 1 <= len(shape) <= 2 or not all(shape):
        raise BadRequest(f"tensor {name[:80]!r} has an unusual shape, {list(shape)}")
    changes = [change for ending, change in family.changes.items() if name.endswith(ending)]
    step = _block_rows(shape, head)
    if step * math.prod(shape[1:]) > _MAX_BLOCK_ELEMENTS:
        raise BadRequest(f"tensor {name[:80]!r} has heads or rows that are too large")

    def blocks() -> Iterator[Floats]:
        for start in range(0, shape[0], step):
            yield _changed(weights.read(name, start, min(start + step, shape[0])), changes, head)

    small = len(shape) == 1 or out in _ALWAYS_F32
    return OutTensor(out, shape, "F32" if small else kind, blocks)


def _block_rows(shape: tuple[int, ...], head: int) -> int:
    """Whole heads, as many as make a block."""
    rows = _BLOCK_ELEMENTS // math.prod(shape[1:])
    return max(head, rows // head * head)


def _changed(rows: Floats, changes: list[Change], head: int) -> Floats:
    for change in changes:
        rows = change(rows, head)
    return rows


def _made(tensors: dict[str, Floats]) -> list[OutTensor]:
    def once(numbers: Floats) -> Callable[[], Iterator[Floats]]:
        return lambda: iter([numbers])

    return [
        OutTensor(name, numbers.shape, "F32", once(numbers)) for name, numbers in tensors.items()
    ]
