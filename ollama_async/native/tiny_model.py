"""Writes a small language model with random weights as GGUF, for the probe and the tests.

The weights come from a fixed seed, so the same arguments give the same bytes (for one release of
``numpy`` and ``gguf``). The vocabulary is synthetic, of SentencePiece kind, laid out as::

    0 <unk>   1 <s> (BOS)   2 </s> (EOS)   3…258 one token per byte
    then: the given control tokens, "▁" and printable ASCII, prefixes of a few words, padding

so every UTF-8 text tokenizes and detokenizes exactly. The output rows of byte and control tokens
are zero: greedy generation yields words and never ends by itself.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import quantize
from numpy.typing import NDArray

Quantization = Literal["F32", "F16", "Q8_0", "Q4_0"]

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
_VALUE_TYPES = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
}
UNKNOWN, NORMAL, CONTROL, BYTE = 2, 1, 3, 6  # token types of the format
_UNQUANTIZED = frozenset({"token_types.weight"})  # the library adds a row of it as it is
_BLOCK_WIDTH = 32  # elements in a block of Q8_0 and Q4_0
WORDS = (
    "the and you that was for are with his they this have from one had word but not what all "
    "were when your can said there use each which she how their will other about out many then "
    "them these some her would make like him into time has look two more write see number way "
    "could people than first water been call who now find long down day did get come made may part"
)


class _Dimensions(msgspec.Struct, frozen=True, kw_only=True):
    """``width`` and ``feed_forward`` are multiples of 32."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 128


class _TokenTable(msgspec.Struct, frozen=True):
    """Token texts, scores and types; ``plain``: the ids of ordinary tokens."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    plain: range


def write_tiny_model(
    path: str | Path,
    *,
    quantization: Quantization = "F32",
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward: int = 128,
    vocab: int = 0,
    context: int = 2048,
    chat_template: str | None = None,
    control_tokens: Sequence[str] = (),
    seed: int = 0,
    architecture: str = "llama",
    metadata: Mapping[str, Any] | None = None,
    more_tensors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Write the model to ``path``, atomically.

    ``vocab``: number of tokens, 0 without padding. ``control_tokens`` are added as special tokens
    (``<|im_start|>``). ``metadata`` adds or replaces GGUF keys; None removes one. ``architecture``
    only changes names in the file: the tensors are Llama's, and ``more_tensors``.

    :raises ValueError: the dimensions do not fit together.
    """
    shape = _Dimensions(
        layers=layers, width=width, heads=heads, kv_heads=kv_heads, feed_forward=feed_forward
    )
    _check(shape)
    vocabulary = _vocabulary(vocab, control_tokens)
    fields = {
        **_fields(architecture, shape, context, FILE_TYPES[quantization]),
        **_tokenizer_fields(vocabulary),
        "tokenizer.chat_template": chat_template,
        **(metadata or {}),
    }
    tensors = _tensors(shape, vocabulary, np.random.default_rng(seed))
    tensors += (more_tensors or {}).items()
    return write_gguf(path, architecture, fields, tensors, quantization)


def write_gguf(
    path: str | Path,
    architecture: str,
    fields: Mapping[str, Any],
    tensors: Iterable[tuple[str, NDArray[np.float32]]],
    quantization: Quantization = "F32",
) -> Path:
    """Write a file with these keys (None: left out) and tensors, atomically."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        writer = GGUFWriter(partial, architecture)
        for key, value in fields.items():
            if value is not None:
                _add_field(writer, key, value)
        for name, weights in tensors:
            _add_tensor(writer, name, weights, quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _check(shape: _Dimensions) -> None:
    if shape.width % _BLOCK_WIDTH or shape.feed_forward % _BLOCK_WIDTH:
        raise ValueError("width and feed_forward must be multiples of 32")
    if shape.width % shape.heads or (shape.width // shape.heads) % 2:
        raise ValueError("heads must divide width into even parts")
    if shape.heads % shape.kv_heads:
        raise ValueError("kv_heads must divide heads")


def _vocabulary(size: int, control_tokens: Sequence[str]) -> _TokenTable:
    """Every prefix of a word is a token, with a score that grows with its length: the tokenizer
    merges two tokens only into an existing one.
    """
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *control_tokens]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [CONTROL] * len(control_tokens)
    plain = ["▁", *(chr(code) for code in range(33, 127))]
    prefixes = {f"▁{word[:end]}" for word in WORDS.split() for end in range(1, len(word) + 1)}
    plain += sorted(prefixes, key=lambda text: (len(text), text))
    count = len(special) + len(plain)
    if size and size < count:
        raise ValueError(f"vocab must be 0 or at least {count}")
    plain += [f"▁pad{number}" for number in range(size - count)]
    return _TokenTable(
        texts=special + plain,
        scores=[0.0] * len(special) + [float(len(text)) for text in plain],
        types=types + [NORMAL] * len(plain),
        plain=range(len(special), len(special) + len(plain)),
    )


def _fields(
    architecture: str, shape: _Dimensions, context: int, file_type: LlamaFileType
) -> dict[str, Any]:
    return {
        "general.name": "tiny random model",
        "general.file_type": int(file_type),
        f"{architecture}.context_length": context,
        f"{architecture}.embedding_length": shape.width,
        f"{architecture}.block_count": shape.layers,
        f"{architecture}.feed_forward_length": shape.feed_forward,
        f"{architecture}.attention.head_count": shape.heads,
        f"{architecture}.attention.head_count_kv": shape.kv_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.dimension_count": shape.width // shape.heads,
    }


def _tokenizer_fields(vocabulary: _TokenTable) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": vocabulary.texts,
        "tokenizer.ggml.scores": vocabulary.scores,
        "tokenizer.ggml.token_type": vocabulary.types,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _add_field(writer: GGUFWriter, key: str, value: Any) -> None:
    kind = _VALUE_TYPES.get(type(value), GGUFValueType.ARRAY)
    writer.add_key_value(key, list(value) if kind is GGUFValueType.ARRAY else value, kind)


def _tensors(
    shape: _Dimensions, vocabulary: _TokenTable, random: np.random.Generator
) -> list[tuple[str, NDArray[np.float32]]]:
    """All weights by name; matrices (rows out, columns in) keep the scale of activations at 1."""

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return random.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)

    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads
    ones = np.ones(width, dtype=np.float32)
    output = np.zeros((len(vocabulary.texts), width), dtype=np.float32)
    output[vocabulary.plain.start :] = 3 * matrix(len(vocabulary.plain), width)
    tensors = [
        ("token_embd.weight", matrix(len(vocabulary.texts), width) * np.float32(width**0.5)),
        ("output_norm.weight", ones),
        ("output.weight", output),
    ]
    for layer in range(shape.layers):
        tensors += [
            (f"blk.{layer}.attn_norm.weight", ones),
            (f"blk.{layer}.attn_q.weight", matrix(width, width)),
            (f"blk.{layer}.attn_k.weight", matrix(kv_width, width)),
            (f"blk.{layer}.attn_v.weight", matrix(kv_width, width)),
            (f"blk.{layer}.attn_output.weight", matrix(width, width)),
            (f"blk.{layer}.ffn_norm.weight", ones),
            (f"blk.{layer}.ffn_gate.weight", matrix(shape.feed_forward, width)),
            (f"blk.{layer}.ffn_up.weight", matrix(shape.feed_forward, width)),
            (f"blk.{layer}.ffn_down.weight", matrix(width, shape.feed_forward)),
        ]
    return tensors


def _add_tensor(
    writer: GGUFWriter, name: str, weights: NDArray[np.float32], quantization: Quantization
) -> None:
    if weights.ndim == 1 or name in _UNQUANTIZED:  # the library requires norms as F32
        writer.add_tensor(name, weights)
        return
    kind = GGMLQuantizationType[quantization]
    writer.add_tensor(name, quantize(weights, kind), raw_dtype=kind)
