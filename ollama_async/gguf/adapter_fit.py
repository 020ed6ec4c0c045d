"""Whether a LoRA adapter, as a GGUF file, can be applied to a model.

The engine library checks much of this too, but some of what it does not makes it abort in the
middle of an answer; and who creates a model should hear of it then, not when somebody asks it.
"""

from __future__ import annotations

import math

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import GgufHeader, Tensor
from ollama_async.gguf.types import TENSOR_TYPES

_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What adapters are made of, and every way of computing with them knows."""

_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"


def check_fit(adapter: GgufHeader, base: GgufHeader) -> None:
    """:raises BadRequest: the engine could not, or should not, apply the adapter to the base."""
    _check_metadata(adapter, base)
    tensors = {tensor.name: tensor for tensor in base.tensors}
    pairs = _pairs(adapter)
    if not pairs:
        raise BadRequest("the adapter has no LoRA tensors")
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise BadRequest(f"the adapter has only one of the two tensors for {name!r}")
        weights = tensors.get(name)
        if weights is None:
            raise BadRequest(f"the adapter changes {name!r}, which the base model does not have")
        _check_pair(name, pair["lora_a"], pair["lora_b"], weights)
    if _EMBEDDINGS in pairs and _OUTPUT not in tensors:
        raise BadRequest(
            f"the adapter changes {_EMBEDDINGS!r}, "
            "but the base model uses the same weights for its output"
        )


def _check_metadata(adapter: GgufHeader, base: GgufHeader) -> None:
    ours, theirs = (each.metadata.get("general.architecture") for each in (adapter, base))
    if ours != theirs:
        raise BadRequest(f"the adapter is for {ours!r} models, but the base model is {theirs!r}")
    kind = adapter.metadata.get("adapter.type")
    if kind != "lora":
        raise BadRequest(f"the adapter's type is {kind!r}, only 'lora' is supported")
    alpha = adapter.metadata.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise BadRequest(f"the adapter's alpha is {alpha!r}, it must be a float")
    if "adapter.alora.invocation_tokens" in adapter.metadata:
        raise BadRequest("adapters that wait for a sequence of tokens (aLoRA) are not supported")


def _pairs(adapter: GgufHeader) -> dict[str, dict[str, Tensor]]:
    """By the name of the base's tensor: its ``lora_a`` and ``lora_b``."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in adapter.tensors:
        name, _, suffix = tensor.name.rpartition(".")
        if suffix in {"lora_a", "lora_b"}:
            pairs.setdefault(name, {})[suffix] = tensor
        elif not tensor.name.endswith("_norm.weight"):  # the engine passes over these
            raise BadRequest(f"the adapter has the tensor {tensor.name!r}, which is no LoRA's")
    return pairs


def _check_pair(name: str, a: Tensor, b: Tensor, weights: Tensor) -> None:
    for tensor in (a, b):
        kind = TENSOR_TYPES[tensor.type].name
        if kind not in _TYPES:
            known = ", ".join(_TYPES)
            raise BadRequest(f"{tensor.name!r} has the type {kind}, an adapter's must be {known}")
    (a0, a1, *a_rest), (b0, b1, *b_rest), (w0, w1, *w_rest) = map(_extents, (a, b, weights))
    fits = (a0, a1, b1) == (b0, w1, w0) if name == _EMBEDDINGS else (a1, a0, b1) == (b0, w0, w1)
    if not fits or not a_rest == b_rest == w_rest or len(weights.shape) < 2:
        raise BadRequest(
            f"the adapter's tensors for {name!r} have the shapes {list(a.shape)} and "
            f"{list(b.shape)}, which do not fit the base model's {list(weights.shape)}"
        )


def _extents(tensor: Tensor) -> tuple[int, ...]:
    """All four, as the engine sees them."""
    return (*tensor.shape, 1, 1, 1, 1)[:4]
