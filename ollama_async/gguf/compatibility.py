"""Finds files that the engine cannot use: parts are missing, or do not belong there or fit.

The engine library loads some of these files, and then aborts its process in the middle of an
answer. So models are checked when they are created or pulled.
"""

from __future__ import annotations

import math

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import Array, GgufHeader, TensorInfo, Value
from ollama_async.gguf.types import TENSOR_TYPES

_KIND, _TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"
_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"
_NO_KINDS = ("", "none", "no_vocab")
_QUOTED_CHARACTERS = 40
"""Of a value in an error."""
_ADAPTER_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""Types that every backend can apply."""


_ENCODER = ("v.", "mm.")
"""Names of a vision encoder's tensors begin so."""


def find_missing_part(header: GgufHeader) -> str:
    """What keeps the engine from running the model, in words after "its file has"; "" if nothing:
    a part that is missing, or one that must be in another file.
    """
    kind, tokens = header.metadata.get(_KIND), header.metadata.get(_TOKENS)
    if not header.tensors:
        suffix = "" if tokens is None else ", only a vocabulary"
        return f"no weights: it has no tensors{suffix}"
    fault = _vocabulary_fault(kind, tokens)
    if fault:
        return f"no vocabulary: {fault}"
    assert isinstance(tokens, Array)
    for tensor in header.tensors:
        if tensor.name == _EMBEDDINGS and tensor.shape[1:] != (tokens.length,):
            return (
                f"no weights that fit its vocabulary: {_EMBEDDINGS!r} has the shape "
                f"{list(tensor.shape)}, for {tokens.length} tokens"
            )
    if any(tensor.name.startswith(_ENCODER) for tensor in header.tensors):
        return (
            "text and vision together, as models of Ollama's library do; the engine reads vision"
            " only from a projector file of its own"
        )
    return ""


def _vocabulary_fault(kind: Value | None, tokens: Value | None) -> str:
    if kind is None:
        return f"{_KIND!r} is missing"
    if not isinstance(kind, str) or kind in _NO_KINDS:
        return f"{_KIND!r} is {str(kind)[:_QUOTED_CHARACTERS]!r}"
    if tokens is None:
        return f"{_TOKENS!r} is missing"
    if not isinstance(tokens, Array) or tokens.values:
        return f"{_TOKENS!r} is not a list of texts"
    return "" if tokens.length else f"{_TOKENS!r} is empty"


# ----------------------------------------------------------------- LoRA adapters


def check_adapter(adapter: GgufHeader, base: GgufHeader) -> None:
    """:raises BadRequest: the adapter does not fit the base, or is of an unsupported kind."""
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


def _pairs(adapter: GgufHeader) -> dict[str, dict[str, TensorInfo]]:
    """``lora_a`` and ``lora_b`` by the name of the base's tensor."""
    pairs: dict[str, dict[str, TensorInfo]] = {}
    for tensor in adapter.tensors:
        name, _, suffix = tensor.name.rpartition(".")
        if suffix in {"lora_a", "lora_b"}:
            pairs.setdefault(name, {})[suffix] = tensor
        elif not tensor.name.endswith("_norm.weight"):  # the engine ignores these
            raise BadRequest(
                f"the adapter has the tensor {tensor.name!r}, which is not a LoRA tensor"
            )
    return pairs


def _check_pair(name: str, a: TensorInfo, b: TensorInfo, weights: TensorInfo) -> None:
    for tensor in (a, b):
        kind = TENSOR_TYPES[tensor.type].name
        if kind not in _ADAPTER_TYPES:
            known = ", ".join(_ADAPTER_TYPES)
            raise BadRequest(f"{tensor.name!r} has the type {kind}, an adapter's must be {known}")
    (a0, a1, *a_rest), (b0, b1, *b_rest), (w0, w1, *w_rest) = map(_extents, (a, b, weights))
    fits = (a0, a1, b1) == (b0, w1, w0) if name == _EMBEDDINGS else (a1, a0, b1) == (b0, w0, w1)
    if not fits or not a_rest == b_rest == w_rest or len(weights.shape) < 2:
        raise BadRequest(
            f"the adapter's tensors for {name!r} have the shapes {list(a.shape)} and "
            f"{list(b.shape)}, which do not fit the base model's {list(weights.shape)}"
        )


def _extents(tensor: TensorInfo) -> tuple[int, ...]:
    """All four dimensions, as in ggml."""
    return (*tensor.shape, 1, 1, 1, 1)[:4]
