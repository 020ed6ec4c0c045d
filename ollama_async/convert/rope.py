"""Rotary position embeddings: from the options of ``config.json`` to llama.cpp's.

Up to transformers 4 a configuration has ``rope_theta`` and ``rope_scaling``. Later ones have both
in ``rope_parameters``, with one section for each kind of layer if there are several.
"""

from __future__ import annotations

import math

import numpy as np

from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.gguf_writer import Fields
from ollama_async.convert.safetensors import Floats
from ollama_async.core.errors import BadRequest

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"

PLAIN = ("default", "linear", "yarn")
LONG = ("default", "longrope")
ALL = (*PLAIN, "llama3", "longrope")
"""Kinds of scaling that llama.cpp supports, depending on the network."""


def fields(config: JsonObject, dimensions: int, kinds: tuple[str, ...] = ALL) -> Fields:
    """Keys below ``ARCHITECTURE.`` for heads with ``dimensions`` rotated dimensions.

    :raises BadRequest: the kind of scaling is not among ``kinds``, or an option is not supported.
    """
    parameters = _parameters(config)
    kind = _kind(parameters)
    if kind not in kinds:
        raise parameters.unsupported(
            f'"rope_type": {kind!r}', "is not supported by llama.cpp in such a network"
        )
    found: Fields = {
        "rope.dimension_count": dimensions,
        "rope.freq_base": parameters.number("rope_theta", 10000.0),
    }
    if kind not in {"default", "llama3"}:
        found["rope.scaling.type"] = kind
    if kind == "linear":
        found["rope.scaling.factor"] = _positive(parameters, parameters.number("factor"))
    if kind in {"yarn", "longrope"}:
        found["rope.scaling.original_context_length"] = _original_context(config, parameters)
    if kind == "yarn":
        found |= _yarn(config, parameters)
    if kind == "longrope":
        found["rope.scaling.attn_factor"] = _longrope_attention_factor(config, parameters)
    return found


def check_yarn_betas(config: JsonObject) -> None:
    """:raises BadRequest: they differ from llama.cpp's defaults, which apply in these networks."""
    parameters = _parameters(config)
    if _kind(parameters) != "yarn":
        return
    for name, usual in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        if parameters.number(name, 0.0) not in {0.0, usual}:  # 0 means absent
            raise parameters.unsupported(f'"{name}"', f"is not {usual:g}, as llama.cpp has it")


def rotary_fraction(config: JsonObject) -> float:
    """The fraction of a head's dimensions that is rotated."""
    whole = config.number("partial_rotary_factor", 1.0)
    return _parameters(config).number("partial_rotary_factor", whole)


def check_full_rotation(config: JsonObject) -> None:
    """:raises BadRequest: a part of each head is not rotated."""
    if rotary_fraction(config) != 1:
        raise config.unsupported(
            '"partial_rotary_factor"', "is not supported by llama.cpp in such a network"
        )


def tensors(config: JsonObject, dimensions: int) -> dict[str, Floats]:
    """Additional tensors of the GGUF: divisors of each frequency."""
    parameters = _parameters(config)
    kind = _kind(parameters)
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3(config, parameters, dimensions)}
    if kind == "longrope":
        return {
            "rope_factors_long.weight": _factors(parameters, "long_factor", dimensions),
            "rope_factors_short.weight": _factors(parameters, "short_factor", dimensions),
        }
    return {}


def local_freq_base(config: JsonObject) -> float:
    """The frequency base of layers with an attention window.

    :raises BadRequest: these layers scale positions.
    """
    nested = config.section("rope_parameters")
    local = nested.section(_LOCAL) if nested else None
    if local is None:
        if nested is not None and _GLOBAL not in nested.values:
            raise config.unsupported('"rope_parameters"', "has no section for each kind of layer")
        return config.number("rope_local_base_freq", 10000.0)
    if _kind(local) != "default":
        raise local.unsupported('"rope_type"', "is not 'default', which llama.cpp cannot do")
    return local.number("rope_theta", 10000.0)


def _parameters(config: JsonObject) -> JsonObject:
    """The options in either format; those for full attention if there are several kinds.

    :raises BadRequest: both formats are present and differ.
    """
    new, old = config.section("rope_parameters"), config.section("rope_scaling")
    if new is not None and old is not None and _differ(new, old):
        raise config.unsupported('"rope_scaling"', 'differs from "rope_parameters"')
    found = (new.section(_GLOBAL) or new) if new else old or JsonObject(config.where, {})
    return found.over({"rope_theta": config.values.get("rope_theta")})


def _differ(new: JsonObject, old: JsonObject) -> bool:
    inner = new.section(_GLOBAL) or new
    new_names = {"type": "rope_type"}
    return any(
        inner.values.get(new_names.get(name, name)) != value for name, value in old.values.items()
    )


def _kind(parameters: JsonObject) -> str:
    kind = parameters.text("rope_type", parameters.text("type", "default"))
    # "dynamic" changes positions beyond the training context only
    kind = {"su": "longrope", "dynamic": "default"}.get(kind, kind)
    if kind not in ALL:
        raise BadRequest(
            f'{parameters.where}: "rope_type": positions are scaled in an unknown way, '
            f"{kind[:80]!r}"
        )
    return kind


def _original_context(config: JsonObject, parameters: JsonObject) -> int:
    """:raises BadRequest: there are two different values."""
    name = "original_max_position_embeddings"
    found = {source.count(name) for source in (config, parameters) if name in source.values}
    if len(found) > 1:
        raise config.unsupported(f'"{name}"', f"differs from {parameters.where}")
    return found.pop() if found else config.count("max_position_embeddings")


def _yarn(config: JsonObject, parameters: JsonObject) -> Fields:
    """Only what differs from llama.cpp's defaults."""
    ratio = config.count("max_position_embeddings") / _original_context(config, parameters)
    factor = _positive(parameters, parameters.number("factor", ratio))
    if not parameters.flag("truncate", default=True):
        raise parameters.unsupported('"truncate"', "is off, which llama.cpp cannot do")
    found: Fields = {"rope.scaling.factor": factor}
    for name in ("beta_fast", "beta_slow"):
        if parameters.number(name, 0.0):  # 0 means absent
            found[f"rope.scaling.yarn_{name}"] = parameters.number(name)
    usual = _mscale(factor, 1.0)
    published = parameters.number("attention_factor", _attention_factor(parameters, factor))
    if published != usual:
        found["rope.scaling.attn_factor"] = published / usual
    return found


def _positive(parameters: JsonObject, factor: float) -> float:
    if factor <= 0:
        raise parameters.unsupported('"factor"', "is not above 0")
    return factor


def _attention_factor(parameters: JsonObject, factor: float) -> float:
    """The default attention factor of YaRN."""
    one, other = parameters.number("mscale", 0.0), parameters.number("mscale_all_dim", 0.0)
    if one and other:
        return _mscale(factor, one) / _mscale(factor, other)
    return _mscale(factor, 1.0)


def _mscale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope_attention_factor(config: JsonObject, parameters: JsonObject) -> float:
    if "attention_factor" in parameters.values:
        return parameters.number("attention_factor")
    original = _original_context(config, parameters)
    ratio = config.count("max_position_embeddings") / original
    scale = parameters.number("factor", ratio)
    return (
        math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 and original > 1 else 1.0
    )


def _llama3(config: JsonObject, parameters: JsonObject, dimensions: int) -> Floats:
    """Divisors: 1 for high frequencies, ``factor`` for low ones, interpolated between."""
    factor = parameters.number("factor", 8.0)
    low = parameters.number("low_freq_factor", 1.0)
    high = parameters.number("high_freq_factor", 4.0)
    context = _original_context(config, parameters)
    if not 0 < low < high or factor <= 0:
        raise BadRequest(f"{parameters.where}: the factors are invalid")
    base = parameters.number("rope_theta", 10000.0)
    lengths = 2 * np.pi * base ** (np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
    high_share = np.clip((context / lengths - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - high_share) / factor + high_share)).astype(np.float32)


def _factors(parameters: JsonObject, name: str, dimensions: int) -> Floats:
    factors = parameters.numbers(name)
    if len(factors) != dimensions // 2:
        raise BadRequest(f'{parameters.where}: "{name}" does not have {dimensions // 2} numbers')
    return np.array(factors, dtype=np.float32)
