"""How positions turn into angles: the spellings of ``config.json`` made into what llama.cpp reads.

Until version 4 of transformers a configuration has ``rope_theta`` and ``rope_scaling``; since then
``rope_parameters`` holds both, for each kind of layer if there are several kinds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ollama_async.convert.documents import Document
from ollama_async.convert.safetensors import Floats
from ollama_async.errors import BadRequest

Fields = dict[str, Any]
_GLOBAL = "full_attention"


def fields(config: Document, dimensions: int) -> Fields:
    """Keys below ``ARCHITECTURE.`` for heads of which ``dimensions`` turn.

    :raises BadRequest: a kind of scaling that llama.cpp does not know.
    """
    parameters = _parameters(config)
    kind = _kind(parameters)
    found: Fields = {
        "rope.dimension_count": dimensions,
        "rope.freq_base": parameters.number("rope_theta", 10000.0),
    }
    if kind in {"linear", "yarn"}:
        found["rope.scaling.type"] = kind
        found["rope.scaling.factor"] = parameters.number("factor")
    if kind in {"yarn", "longrope"}:
        found["rope.scaling.original_context_length"] = _original_context(config, parameters)
    if kind == "yarn":
        found |= _yarn(parameters)
    if kind == "longrope":
        found["rope.scaling.attn_factor"] = _long_attention(config, parameters)
    return found


def tensors(config: Document, dimensions: int) -> dict[str, Floats]:
    """Tensors that the file of weights lacks: divisors of each frequency."""
    parameters = _parameters(config)
    kind = _kind(parameters)
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3(parameters, dimensions)}
    if kind == "longrope":
        return {
            "rope_factors_long.weight": _factors(parameters, "long_factor", dimensions),
            "rope_factors_short.weight": _factors(parameters, "short_factor", dimensions),
        }
    return {}


def local_base(config: Document) -> float:
    """The base of layers that only see a window, where these have one of their own."""
    nested = config.section("rope_parameters")
    local = nested.section("sliding_attention") if nested else None
    if local is not None:
        return local.number("rope_theta", 10000.0)
    return config.number("rope_local_base_freq", 10000.0)


def _parameters(config: Document) -> Document:
    """The old spelling and the new one, as one object; of several kinds of layers the global."""
    parameters = config.section("rope_parameters")
    if parameters is not None:
        found = parameters.section(_GLOBAL) or parameters
    else:
        found = config.section("rope_scaling") or Document(config.where, {})
    return found.over({"rope_theta": config.values.get("rope_theta")})


def _kind(parameters: Document) -> str:
    kind = parameters.text("rope_type", parameters.text("type", "default"))
    kind = {"su": "longrope", "dynamic": "default"}.get(kind, kind)  # dynamic: beyond training only
    if kind not in {"default", "linear", "yarn", "llama3", "longrope"}:
        raise BadRequest(
            f"{parameters.where}: positions are scaled in an unknown way, {kind[:80]!r}"
        )
    return kind


def _original_context(config: Document, parameters: Document) -> int:
    name = "original_max_position_embeddings"
    if name in parameters.values:
        return parameters.count(name)
    return config.count(name, config.count("max_position_embeddings"))


def _yarn(parameters: Document) -> Fields:
    """Only what differs from what llama.cpp does by itself."""
    found: Fields = {}
    for name in ("beta_fast", "beta_slow"):
        if name in parameters.values:
            found[f"rope.scaling.yarn_{name}"] = parameters.number(name)
    if "attention_factor" in parameters.values:
        usual = 0.1 * math.log(max(parameters.number("factor"), 1.0)) + 1.0
        found["rope.scaling.attn_factor"] = parameters.number("attention_factor") / usual
    return found


def _long_attention(config: Document, parameters: Document) -> float:
    if "attention_factor" in parameters.values:
        return parameters.number("attention_factor")
    original = _original_context(config, parameters)
    scale = config.count("max_position_embeddings") / original
    return (
        math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 and original > 1 else 1.0
    )


def _llama3(parameters: Document, dimensions: int) -> Floats:
    """Fast frequencies stay, slow ones are divided by ``factor``, those between by something
    between.
    """
    factor = parameters.number("factor", 8.0)
    low = parameters.number("low_freq_factor", 1.0)
    high = parameters.number("high_freq_factor", 4.0)
    context = parameters.count("original_max_position_embeddings", 8192)
    if not 0 < low < high or factor <= 0:
        raise BadRequest(f"{parameters.where}: the factors make no sense")
    base = parameters.number("rope_theta", 10000.0)
    lengths = 2 * np.pi * base ** (np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
    share = np.clip((context / lengths - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def _factors(parameters: Document, name: str, dimensions: int) -> Floats:
    factors = parameters.numbers(name)
    if len(factors) != dimensions // 2:
        raise BadRequest(f'{parameters.where}: "{name}" does not have {dimensions // 2} numbers')
    return np.array(factors, dtype=np.float32)
