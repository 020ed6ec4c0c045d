"""The trained model as a GGUF file: Q8_0 matrices, vocabulary, chat template, provenance.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from demo.model import Llama
from demo.render import CHAT_TEMPLATE, TEXT_END, TURN_END
from demo.tokenizer import CONTROL, MARKS, PRE_TOKENIZER, Vocabulary

_Q8_0 = GGMLQuantizationType.Q8_0
_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def export(model: Llama, vocabulary: Vocabulary, path: Path) -> None:
    """Write ``path``; it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    writer = GGUFWriter(partial, "llama")
    try:
        _describe(writer)
        _add_shape(writer, model)
        _add_vocabulary(writer, vocabulary)
        for name, weight in model.state_dict().items():
            _add_tensor(writer, _tensor_name(name), weight.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(model: Llama, path: Path) -> None:
    """Set the weights to those of a file that :func:`export` wrote, as exact as Q8_0 keeps them."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    weights = {}
    for name, weight in model.state_dict().items():
        tensor = tensors[_tensor_name(name)]
        plain = dequantize(tensor.data, tensor.tensor_type)
        weights[name] = torch.from_numpy(plain.reshape(weight.shape).copy())
    model.load_state_dict(weights)


def _describe(writer: GGUFWriter) -> None:
    writer.add_name("demo")
    writer.add_author("the authors of ollama_async")
    writer.add_license("MIT")
    writer.add_description(
        "A very small chat model for trying out and testing ollama_async. Trained from scratch on "
        "a synthetic corpus that was written for it; training/demo in the source repeats it. It "
        "knows the answers to some five hundred questions by heart and is no source of knowledge."
    )
    writer.add_languages(["en", "zh"])
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)


def _add_shape(writer: GGUFWriter, model: Llama) -> None:
    shape = model.shape
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    kinds = [TokenType.NORMAL] * len(vocabulary.tokens)
    for token in CONTROL:
        kinds[ids[token]] = TokenType.CONTROL
    for token in MARKS:
        kinds[ids[token]] = TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    writer.add_bos_token_id(ids[TEXT_END])
    writer.add_eos_token_id(ids[TURN_END])
    writer.add_pad_token_id(ids[TEXT_END])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensor(writer: GGUFWriter, name: str, weight: NDArray[np.float32]) -> None:
    if weight.ndim == 1:  # the library wants norms as F32
        writer.add_tensor(name, weight)
    else:
        writer.add_tensor(name, quantize(weight, _Q8_0), raw_dtype=_Q8_0)


def _tensor_name(name: str) -> str:
    match name.split("."):
        case ["embedding", "weight"]:
            return "token_embd.weight"
        case ["norm", "weight"]:
            return "output_norm.weight"
        case ["blocks", number, part, "weight"]:
            return f"blk.{number}.{_NAMES[part]}.weight"
        case _:
            raise ValueError(f"the format has no name for {name}")
