"""Writes a BERT with random weights as GGUF, for the tests and the benchmark of embeddings.

The same arguments give the same bytes, as in :mod:`.tiny_model`. The vocabulary is of WordPiece
kind: five special tokens, then printable ASCII, once as the beginning of a word ("▁" in front, as
the format has it) and once as its continuation, then a few words, then padding.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.native.tiny_model import (
    CONTROL,
    FILE_TYPES,
    NORMAL,
    UNKNOWN,
    WORDS,
    Quantization,
    write_gguf,
)

Pooling = Literal["mean", "cls", "last", "rank"]

POOLING_TYPES = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""Values of ``<architecture>.pooling_type``."""

PAD, UNK, CLS, SEP, MASK = range(5)

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SPREAD = 0.04  # standard deviation of BERT's initial weights is 0.02; more makes texts differ


class EncoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """``heads`` divide ``width``. ``vocab`` 0: without padding."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    feed_forward: int = 128
    vocab: int = 0
    context: int = 128


def write_tiny_encoder(
    path: str | Path,
    shape: EncoderShape = EncoderShape(),  # noqa: B008  # frozen
    *,
    pooling: Pooling | None = "mean",
    quantization: Quantization = "F32",
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    nan: bool = False,
) -> Path:
    """Write the model to ``path``, atomically.

    ``pooling`` None leaves the key out; ``rank`` adds a classifier with one output. ``metadata``
    adds or replaces GGUF keys; None removes one. ``nan``: one weight of the last layer is NaN.
    """
    texts = vocabulary(shape.vocab)
    types = [UNKNOWN if each == UNK else CONTROL for each in range(len(_SPECIAL))]
    fields: dict[str, Any] = {
        "general.name": "tiny random encoder",
        "general.file_type": int(FILE_TYPES[quantization]),
        "bert.context_length": shape.context,
        "bert.embedding_length": shape.width,
        "bert.block_count": shape.layers,
        "bert.feed_forward_length": shape.feed_forward,
        "bert.attention.head_count": shape.heads,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": None if pooling is None else POOLING_TYPES[pooling],
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types + [NORMAL] * (len(texts) - len(types)),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.bos_token_id": CLS,
        "tokenizer.ggml.eos_token_id": SEP,
        "tokenizer.ggml.seperator_token_id": SEP,  # the format's spelling
        "tokenizer.ggml.unknown_token_id": UNK,
        "tokenizer.ggml.padding_token_id": PAD,
        "tokenizer.ggml.mask_token_id": MASK,
        **(metadata or {}),
    }
    tensors = random_weights(shape, len(texts), np.random.default_rng(seed))
    if pooling == "rank":
        tensors |= _classifier(shape.width, np.random.default_rng(seed + 1))
    if nan:
        tensors[f"blk.{shape.layers - 1}.layer_output_norm.bias"][0] = np.nan
    return write_gguf(path, "bert", fields, tensors.items(), quantization)


def random_weights(
    shape: EncoderShape, vocab: int, random: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """All weights by their names in the file; matrices have rows of outputs."""

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return np.float32(_SPREAD) * random.standard_normal((rows, columns), dtype=np.float32)

    width, inner = shape.width, shape.feed_forward
    tensors = {
        "token_embd.weight": matrix(vocab, width),
        "position_embd.weight": matrix(shape.context, width),
        "token_types.weight": matrix(2, width),
        **_norm("token_embd_norm", width),
    }
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}.{name}.weight"] = matrix(width, width)
            tensors[f"{block}.{name}.bias"] = matrix(1, width)[0]
        tensors |= _norm(f"{block}.attn_output_norm", width)
        tensors[f"{block}.ffn_up.weight"] = matrix(inner, width)
        tensors[f"{block}.ffn_up.bias"] = matrix(1, inner)[0]
        tensors[f"{block}.ffn_down.weight"] = matrix(width, inner)
        tensors[f"{block}.ffn_down.bias"] = matrix(1, width)[0]
        tensors |= _norm(f"{block}.layer_output_norm", width)
    return tensors


def _norm(name: str, width: int) -> dict[str, NDArray[np.float32]]:
    return {
        f"{name}.weight": np.ones(width, np.float32),
        f"{name}.bias": np.zeros(width, np.float32),
    }


def _classifier(width: int, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    def matrix(rows: int) -> NDArray[np.float32]:
        return random.standard_normal((rows, width), dtype=np.float32) / np.float32(width**0.5)

    return {
        "cls.weight": matrix(width),
        "cls.bias": np.zeros(width, np.float32),
        "cls.output.weight": matrix(1),
        "cls.output.bias": np.zeros(1, np.float32),
    }


def vocabulary(size: int) -> list[str]:
    """The texts of all tokens, padded to ``size``; every ``▁…`` is a word of one token.

    :raises ValueError: ``size`` is too small, and not 0.
    """
    letters = [letter for letter in string.printable if letter.isprintable() and letter != " "]
    lower = [letter for letter in letters if not letter.isupper()]
    words = [f"▁{word}" for word in dict.fromkeys(WORDS.split()) if len(word) > 1]
    texts = [*_SPECIAL, *(f"▁{letter}" for letter in lower), *lower, *words]
    if size and size < len(texts):
        raise ValueError(f"vocab must be 0 or at least {len(texts)}")
    return texts + [f"▁pad{number}" for number in range(size - len(texts))]
