from __future__ import annotations

import re

import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.create.quantize import (
    FILE_TYPE_NUMBERS,
    LEVELS,
    NEED_MATRIX,
    SOURCE_LEVELS,
    min_bytes,
    parse_level,
)
from ollama_async.gguf.types import FILE_TYPES


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("", ""),
        ("q4_K_M", "Q4_K_M"),
        (" q8_0 ", "Q8_0"),
        ("Q4_K", "Q4_K_M"),
        ("q3_k", "Q3_K_M"),
        ("q5_k", "Q5_K_M"),
        ("mxfp4_moe", "MXFP4"),
        ("f16", "F16"),
    ],
)
def test_levels_are_parsed_in_any_case(text: str, level: str) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q4_k_xl", "unsupported quantization type Q4_K_XL - supported types are F32, F16, BF16,"),
        ("nvfp4", "unsupported quantization type NVFP4 - supported types are "),
        ("iq2_xxs", "unsupported quantization type IQ2_XXS - it needs an importance matrix"),
    ],
)
def test_other_levels_are_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_level(text)
    assert caught.value.message.startswith(words)


def test_every_level_has_a_number_and_no_level_is_forgotten() -> None:
    assert {FILE_TYPES[FILE_TYPE_NUMBERS[level]] for level in LEVELS} == set(LEVELS)
    assert set(LEVELS) | set(NEED_MATRIX) | {"NVFP4"} == set(FILE_TYPES.values())
    assert set(SOURCE_LEVELS) <= set(LEVELS)


def test_every_level_has_a_minimum_size() -> None:
    bits = {level: min_bytes(level, 1 << 20) * 8 / (1 << 20) for level in LEVELS}
    assert (bits["F32"], bits["BF16"], bits["Q8_0"], bits["Q4_K_M"]) == (32, 16, 8.5, 4.5)
    assert all(1 < each <= 32 for each in bits.values())


def test_the_documentation_names_every_level(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "creating.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^- `quantize` accepts (.*?)\n- ", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\b[A-Z]+\d[\w]*", rule)) - set(SOURCE_LEVELS) == set(LEVELS) - set(
        SOURCE_LEVELS
    )
