"""The levels that a model can be quantized to, by the names that people know."""

from __future__ import annotations

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.types import FILE_TYPES, TENSOR_TYPES

LEVELS = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S"),
    *("Q2_K", "Q2_0", "TQ2_0", "TQ1_0", "Q1_0"),
)
"""All that the library writes without an importance matrix. ``MXFP4`` is for mixtures of experts:
what is no expert becomes Q8_0."""

SOURCES = ("F32", "F16", "BF16")
"""What may be quantized; anything else has lost too much already."""

NEED_MATRIX = (
    "Q2_K_S",
    "IQ3_XS",
    "IQ3_XXS",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "IQ1_M",
    "IQ1_S",
)
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4_MOE": "MXFP4"}
_SMALLEST_TYPES = {"IQ3_M": "IQ3_S"}
_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
_NUMBERS = {name: number for number, name in FILE_TYPES.items()}


def parse_level(text: str) -> str:
    """One of :data:`LEVELS`, whatever the case; "" for "".

    :raises BadRequest: ``unsupported quantization type X - …``, with what is supported.
    """
    level = text.strip().upper()
    level = _ALIASES.get(level, level)
    if level in NEED_MATRIX:
        raise BadRequest(
            f"unsupported quantization type {level} - it needs an importance matrix,"
            " which create does not take"
        )
    if level and level not in LEVELS:
        supported = ", ".join(LEVELS)
        raise BadRequest(f"unsupported quantization type {level} - supported types are {supported}")
    return level


def number_of(level: str) -> int:
    """llama.cpp's number for one of :data:`LEVELS`."""
    return _NUMBERS[level]


def least_bytes(level: str, elements: int) -> int:
    """What so many numbers take at a level; some of them may take more. 0: nobody knows."""
    name = _SMALLEST_TYPES.get(level, level)
    kind = _TYPES.get(name) or _TYPES.get(name.rpartition("_")[0])  # Q4_K_M is Q4_K and larger ones
    return elements * kind.block_bytes // kind.block_elements if kind else 0
