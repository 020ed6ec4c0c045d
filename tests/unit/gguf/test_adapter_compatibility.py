"""An adapter that does not fit is refused before the engine library sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.compatibility import check_adapter
from ollama_async.gguf.reader import read_header

SIZES = {0: 4, 1: 2, 26: 4, 28: 8, 30: 2}
Tensors = dict[str, list[int]]

BASE: Tensors = {
    "blk.0.attn_q.weight": [64, 32],
    "blk.0.attn_norm.weight": [64],
    "blk.0.ffn_up_exps.weight": [64, 128, 8],
    "token_embd.weight": [64, 100],
}
Q: Tensors = {"blk.0.attn_q.weight.lora_a": [64, 4], "blk.0.attn_q.weight.lora_b": [4, 32]}
EMBEDDINGS: Tensors = {"token_embd.weight.lora_a": [4, 100], "token_embd.weight.lora_b": [4, 64]}
EXPERTS: Tensors = {
    "blk.0.ffn_up_exps.weight.lora_a": [64, 4, 8],
    "blk.0.ffn_up_exps.weight.lora_b": [4, 128, 8],
}
OUTPUT: Tensors = {"output.weight": [64, 100]}


@pytest.fixture
def check(gguf: Any, tmp_path: Path) -> Callable[..., None]:
    def fill(builder: Any, tensors: Tensors, kind: int) -> Any:
        for name, shape in tensors.items():
            elements = 1
            for extent in shape:
                elements *= extent
            builder.tensor(name, shape, kind, size=elements * SIZES[kind])
        return builder

    def check(
        tensors: Tensors,
        *,
        base: Tensors = BASE,
        kind: int = 0,
        architecture: str = "llama",
        more: Callable[[Any], Any] = lambda builder: builder,
        adapter_type: str = "lora",
    ) -> None:
        builder = gguf(architecture).text("general.type", "adapter")
        builder = more(builder.text("adapter.type", adapter_type))
        adapter = fill(builder, tensors, kind).write(tmp_path / "adapter.gguf")
        model = fill(gguf(), base, 0).write(tmp_path / "base.gguf")
        check_adapter(read_header(adapter), read_header(model))

    return check


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        (Q, {}),
        (Q, {"kind": 1}),
        (Q, {"kind": 30}),
        (Q, {"more": lambda builder: builder.number("adapter.lora.alpha", "f32", 16.0)}),
        (EXPERTS, {}),
        (EMBEDDINGS, {"base": BASE | OUTPUT}),
        (Q | {"blk.0.attn_norm.weight": [64]}, {}),
    ],
)
def test_compatible_adapters(check: Callable[..., None], tensors: Tensors, options: Any) -> None:
    check(tensors, **options)


@pytest.mark.parametrize(
    ("tensors", "options", "text"),
    [
        ({}, {}, "no LoRA tensors"),
        (Q, {"architecture": "gemma2"}, "for 'gemma2' models, but the base model is 'llama'"),
        (Q, {"adapter_type": "control_vector"}, "type is 'control_vector'"),
        (Q, {"more": lambda builder: builder.text("adapter.lora.alpha", "8")}, "alpha is '8'"),
        (Q, {"more": lambda builder: builder.number("adapter.lora.alpha", "u32", 8)}, "alpha is 8"),
        (
            Q,
            {"more": lambda builder: builder.number("adapter.lora.alpha", "f32", float("nan"))},
            "alpha is nan",
        ),
        (
            Q,
            {"more": lambda b: b.numbers("adapter.alora.invocation_tokens", "u32", [1])},
            "aLoRA",
        ),
        (Q, {"kind": 26}, "has the type I32"),
        (Q, {"kind": 28}, "has the type F64"),
        ({"blk.0.attn_q.weight.lora_a": [64, 4]}, {}, "only one of the two"),
        (
            Q | {"blk.0.attn_q.weight": [64, 32]},
            {},
            "'blk.0.attn_q.weight', which is not a LoRA tensor",
        ),
        (
            {"blk.9.attn_q.weight.lora_a": [64, 4], "blk.9.attn_q.weight.lora_b": [4, 32]},
            {},
            "'blk.9.attn_q.weight', which the base model does not have",
        ),
        (EMBEDDINGS, {}, "same weights for its output"),
        *(
            (Q | {f"blk.0.attn_q.weight.lora_{letter}": shape}, {}, "do not fit the base model's")
            for letter, shape in [
                ("a", [32, 4]),
                ("a", [64, 5]),
                ("a", [64, 4, 2]),
                ("b", [4, 64]),
                ("b", [8, 32]),
                ("b", [4, 32, 1, 2]),
            ]
        ),
        (EXPERTS | {"blk.0.ffn_up_exps.weight.lora_b": [4, 128]}, {}, "do not fit"),
        (
            {"blk.0.attn_norm.weight.lora_a": [64, 1], "blk.0.attn_norm.weight.lora_b": [1, 1]},
            {},
            "do not fit",
        ),
        (
            EMBEDDINGS | {"token_embd.weight.lora_a": [8, 100]},
            {"base": BASE | OUTPUT},
            "do not fit",
        ),
    ],
)
def test_what_does_not(
    check: Callable[..., None], tensors: Tensors, options: Any, text: str
) -> None:
    with pytest.raises(BadRequest, match=text):
        check(tensors, **options)
