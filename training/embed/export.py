"""The trained model as a GGUF that llama.cpp runs: architecture ``bert``, pooling by the mean."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    PoolingType,
    TokenType,
)
from gguf.quants import quantize

from embed.model import NORM_EPSILON, Shape, Weights
from embed.tokenizer import CLS, MASK, PAD, SEP, SPECIAL, UNKNOWN

NAME = "demo-embed"
_DESCRIPTION = (
    "A tiny sentence-embedding model: paraphrases lie nearer to each other than to other "
    "sentences. For trying things out and for tests; not for real searches."
)
_PROVENANCE = (
    "Trained from scratch by training/embed of the ollama_async project, on a synthetic corpus "
    "written for this project. It holds no text and no weights of others."
)


def write_gguf(path: Path, pieces: tuple[str, ...], shape: Shape, weights: Weights) -> None:
    """Matrices as Q8_0, vectors as F32; the file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        writer = GGUFWriter(partial, "bert")
        _add_description(writer)
        _add_shape(writer, shape)
        _add_tokenizer(writer, pieces)
        for name, weight in weights.items():
            _add_tensor(writer, name, weight.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _add_description(writer: GGUFWriter) -> None:
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_author("the ollama_async project")
    writer.add_license("MIT")
    writer.add_description(_DESCRIPTION)
    writer.add_string("general.provenance", _PROVENANCE)
    writer.add_tags(["sentence-similarity", "feature-extraction"])
    writer.add_languages(["en", "zh"])
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)


def _add_shape(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(NORM_EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)


def _add_tokenizer(writer: GGUFWriter, pieces: tuple[str, ...]) -> None:
    types = [TokenType.CONTROL] * len(SPECIAL)
    types += [TokenType.NORMAL] * (len(pieces) - len(SPECIAL))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(list(pieces))
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(CLS)  # llama.cpp reads no other key for the mark of the begin
    writer.add_uint32("tokenizer.ggml.cls_token_id", CLS)
    writer.add_eos_token_id(SEP)
    writer.add_sep_token_id(SEP)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(PAD)
    writer.add_mask_token_id(MASK)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)  # the end is marked once, as SEP
    writer.add_add_sep_token(True)


def _add_tensor(writer: GGUFWriter, name: str, weight: np.ndarray) -> None:
    if weight.ndim == 1 or name == "token_types.weight":
        writer.add_tensor(name, weight)
        return
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
