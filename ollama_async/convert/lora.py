"""Converts a LoRA adapter from PEFT's files to a GGUF file for one base model.

PEFT's files are ``adapter_config.json`` and ``adapter_model.safetensors``. For every trained module
with weights W (out, in), the latter has A (rank, in) and B (out, rank); the model then uses
W + s·B·A. Embeddings have A (rank, tokens) and B (width, rank); s·(B·A) transposed is added.

llama.cpp's file has the same matrices as ``NAME.lora_a`` and ``NAME.lora_b``, where NAME is the
tensor's name in the base's GGUF, and one number alpha: s = alpha / rank. A of embeddings is stored
transposed. Where the base's conversion reorders the rows of weights, B's rows are reordered, too.

Other options are rejected by name; an adapter is never applied in part.

https://huggingface.co/docs/peft/developer_guides/checkpoint describes PEFT's files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ollama_async.convert.architectures import ARCHITECTURES
from ollama_async.convert.config_files import Files, read_bytes
from ollama_async.convert.gguf_writer import FloatType, OutputTensor, write
from ollama_async.convert.safetensors import Floats, Safetensors
from ollama_async.core.errors import BadRequest

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

# Limits on what the files may claim. Real ones: ranks up to 256, 256 000 tokens, 126 layers.
_MAX_CONFIG_BYTES = 1 << 20
_MAX_ELEMENTS = 1 << 27  # of one matrix, which is in memory at once
_MAX_LAYERS = 512  # llama.cpp's own
_LARGEST = 1e6  # rank and alpha; llama.cpp ignores an alpha that rounds to 0

_UNSUPPORTED = {
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "ensure_weight_tying",
}
"""Options that change the meaning of the matrices, or add other weights."""
_VARIANT = re.compile(r"use_\w+|\w+_config")
"""Names of options for variants of LoRA, including future ones."""
_NO_VARIANTS = {
    # the scale, which we apply; initialization and distribution of the training
    "use_rslora",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
}
_KEEPS_BASE = {True, False, None, "gaussian", "eva", "orthogonal"}
"""Initializations that do not change the base's weights."""

_MATRIX = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?")
_EMBEDDINGS = "token_embd"
_BY_NAME = {each.name: each for each in ARCHITECTURES.values() if not each.is_embedding}


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """The base model's properties for a conversion; ``head``: dimensions of a head."""

    architecture: str
    layers: int
    head: int


class _Config(msgspec.Struct):
    """The numbers in PEFT's config; patterns override them by module."""

    r: int
    lora_alpha: float
    use_rslora: bool | None = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None

    @property
    def alpha(self) -> float:
        """GGUF's alpha: the strength of modules without a pattern."""
        return self._strength(self.lora_alpha, self.r)

    def rank(self, module: str) -> int:
        return int(_matching(self.rank_pattern, module, self.r))

    def strength(self, module: str) -> float:
        """The scale of the module's matrices times their rank."""
        alpha = _matching(self.alpha_pattern, module, self.lora_alpha)
        return self._strength(alpha, self.rank(module))

    def _strength(self, alpha: float, rank: int) -> float:
        return alpha * math.sqrt(rank) if self.use_rslora else alpha


class _Module(msgspec.Struct):
    """A trained module: its name in PEFT's config, and the names of its matrices in the file."""

    name: str
    is_embedding: bool
    a: str = ""
    b: str = ""


def convert_adapter(files: Files, base: BaseModel, out: Path) -> Iterator[tuple[int, int]]:
    """Write the GGUF to ``out``; yields the bytes written so far and in all, after each matrix.

    ``files``: paths of :data:`CONFIG_NAME` and :data:`WEIGHTS_NAME`. One matrix is in memory at a
    time. The caller checks the tensors' shapes against the base. Otherwise as
    :func:`~ollama_async.convert.model.convert_model`.

    :raises BadRequest: the files are broken or not supported.
    :raises OSError: a file cannot be read, or ``out`` not be written.
    """
    config = _read_config(files)
    with Safetensors(files[WEIGHTS_NAME], WEIGHTS_NAME) as weights:
        fields = {
            "general.type": "adapter",
            "adapter.type": "lora",
            "adapter.lora.alpha": config.alpha,
        }
        tensors = list(_tensors(weights, config, base))
        yield from write(out, base.architecture, fields, tensors)


def _read_config(files: Files) -> _Config:
    """:raises BadRequest: it is invalid, or has options that cannot be converted."""
    data = read_bytes(files, CONFIG_NAME, _MAX_CONFIG_BYTES) or b""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        _check_options(fields)
        config = msgspec.json.decode(data, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f'"{CONFIG_NAME}" cannot be read: {error}') from None
    patterns = (config.rank_pattern, config.alpha_pattern)
    numbers = (number for pattern in patterns if pattern for number in pattern.values())
    for number in (config.r, config.lora_alpha, *numbers):
        if not 1 / _LARGEST <= number <= _LARGEST:
            what = f"{_short(number)} is not a valid rank or alpha"
            raise BadRequest(f'"{CONFIG_NAME}" cannot be read: {what}')
    return config


def _check_options(fields: Mapping[str, Any]) -> None:
    kind = fields.get("peft_type") or "LORA"
    if kind != "LORA":
        raise BadRequest(f"adapters of the type {_short(kind)} are not supported, only 'LORA'")
    enabled = [name for name, value in fields.items() if value]
    wrong = sorted(
        name for name in enabled if _VARIANT.fullmatch(name) and name not in _NO_VARIANTS
    )
    wrong += [name for name in enabled if name in _UNSUPPORTED]
    if fields.get("bias") not in (None, "none"):  # a list cannot be hashed
        wrong.append("bias")
    start = fields.get("init_lora_weights")
    if not isinstance(start, bool | str | None) or start not in _KEEPS_BASE:
        wrong.append("init_lora_weights")
    if wrong:
        options = ", ".join(f"{name} = {_short(fields[name])}" for name in wrong)
        raise BadRequest(f"this adapter cannot be converted: {CONFIG_NAME} has {options}")


def _matching(pattern: Mapping[str, float] | None, module: str, default: float) -> float:
    """The value of the first entry for the module's name or its end, as in PEFT.

    :raises BadRequest: the entry is a regular expression, which we do not run.
    """
    for key, value in (pattern or {}).items():
        name = key.removeprefix("^")
        if not re.fullmatch(r"[\w.-]+", name):
            raise BadRequest(f"{CONFIG_NAME} has the pattern {_short(key)}, which is not supported")
        if module == name or (name == key and module.endswith(f".{name}")):
            return value
    return default


def _tensors(weights: Safetensors, config: _Config, base: BaseModel) -> Iterator[OutputTensor]:
    architecture = _BY_NAME.get(base.architecture)
    if architecture is None:
        known = ", ".join(_BY_NAME)
        raise BadRequest(
            f"adapters for {_short(base.architecture)} models cannot be converted, "
            f"only those for {known}; others can be given as GGUF files"
        )
    if not 0 < base.layers <= _MAX_LAYERS or base.head <= 0:
        raise BadRequest(f"the base model has {base.layers} layers with heads of {base.head}")
    known_names = architecture.tensor_names(base.layers)
    targets: set[str] = set()
    for module in _modules(weights):
        target = known_names.get_name(architecture.canonical_name(module.name))
        if target is None or module.is_embedding != (target == _EMBEDDINGS):
            raise BadRequest(
                f"the adapter changes {_short(module.name)}, "
                f"which the base model ({base.architecture}) does not have"
            )
        if target in targets:
            raise BadRequest(f"the adapter changes {target!r} twice")
        targets.add(target)
        reorder = partial(architecture.changed, f"{module.name}.weight", head=base.head)
        yield from _pair(weights, config, module, target, reorder)


def _modules(weights: Safetensors) -> list[_Module]:
    """:raises BadRequest: a tensor is not a LoRA matrix, or one of a pair is missing."""
    modules: dict[str, _Module] = {}
    for tensor in weights.tensors:
        match = _MATRIX.fullmatch(tensor)
        if match is None:
            raise BadRequest(
                f"this adapter cannot be converted: {_short(tensor)} is not a LoRA matrix"
            )
        path, embedding, letter = match.groups()
        name = path.removeprefix("base_model.model.")
        module = modules.setdefault(path, _Module(name, is_embedding=bool(embedding)))
        field = letter.lower()
        if getattr(module, field) or module.is_embedding != bool(embedding):
            raise BadRequest(f"the adapter has several matrices {letter} for {_short(name)}")
        setattr(module, field, tensor)
    for module in modules.values():
        if not module.a or not module.b:
            missing = "B" if module.a else "A"
            raise BadRequest(f"the adapter has no matrix {missing} for {_short(module.name)}")
    if not modules:
        raise BadRequest("the adapter is empty")
    return list(modules.values())


def _pair(
    weights: Safetensors,
    config: _Config,
    module: _Module,
    target: str,
    reorder: Callable[[Floats], Floats],
) -> Iterator[OutputTensor]:
    """Both matrices of a module. B contains the module's own alpha: the file has only one.

    ``reorder``: the change to the rows of these weights in a conversion of the base.
    """
    a, b = weights.tensors[module.a], weights.tensors[module.b]
    rank = config.rank(module.name)
    for tensor in (a, b):
        if len(tensor.shape) != 2 or not 0 < math.prod(tensor.shape) <= _MAX_ELEMENTS:
            raise BadRequest(f"the matrices of {_short(module.name)} have an impossible shape")
    if not a.shape[0] == b.shape[1] == rank:
        raise BadRequest(
            f"the matrices of {_short(module.name)} have the ranks {a.shape[0]} and {b.shape[1]}, "
            f"but {CONFIG_NAME} has {rank}"
        )
    factor = np.float32(config.strength(module.name) / config.alpha)

    def read_a() -> Iterator[Floats]:
        matrix = weights.read(module.a)
        yield np.ascontiguousarray(matrix.T) if module.is_embedding else matrix

    def read_b() -> Iterator[Floats]:
        yield reorder(weights.read(module.b) * factor)

    shape = a.shape[::-1] if module.is_embedding else a.shape
    yield OutputTensor(f"{target}.weight.lora_a", shape, _kind(a.dtype), read_a)
    yield OutputTensor(f"{target}.weight.lora_b", b.shape, _kind(b.dtype), read_b)


def _kind(dtype: str) -> FloatType:
    """The published type, if it has 16 bits."""
    return "F16" if dtype == "F16" else "BF16" if dtype == "BF16" else "F32"


def _short(value: object) -> str:
    """A value of an untrusted file, for errors."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
