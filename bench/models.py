"""The models that the benchmarks run on: real shapes, random weights from a fixed seed.

- ``100m``: a Llama of 12 layers, 768 wide, 32,000 tokens, as many key as query heads; Q8_0.
- ``q05``: the shape of Qwen2.5-0.5B (24 layers, 896 wide, 14 heads on 2 key heads, 151,936 tokens,
  tied embeddings); Q8_0.
- ``1b``: the shape of TinyLlama-1.1B, and llama.cpp's mixture of Q4_K and Q6_K for Q4_K_M.
- ``kv8b``: a token takes as much KV cache as with an 8B Llama 3, and little time; Q8_0.

The quantized blocks are drawn directly, which takes seconds: steps cost the same whatever the
weights are.

The vocabulary makes every benchmark repeatable: ``▁`` + letters, all prefixes included, so a word
of up to three letters is one token, and an answer sent back as history tokenizes to the tokens it
was made of. Output rows of control, byte and single-letter tokens are zero: their logits are 0
while the best of thousands of others are far above, so no answer ends early.

    python bench/models.py          writes all, prints their paths
"""

from __future__ import annotations

import argparse
import itertools
import os
import string
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("OLLAMA_ASYNC_CACHE", "~/.cache/ollama_async")).expanduser() / "bench"
_VERSION = 2  # of the files' content
_Kind = GGMLQuantizationType
_Random = np.random.Generator

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %} {% endif %}"
    "{{ message.content.strip() }}{% endfor %}"
)
"""Turns joined by blanks, so that each conversation is a prefix of its continuation."""


@dataclass(frozen=True)
class Shape:
    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab: int
    is_tied: bool = False
    has_bias: bool = False
    file_type: LlamaFileType = LlamaFileType.MOSTLY_Q8_0

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    def kind_of(self, name: str, layer: int = 0) -> GGMLQuantizationType:
        """How the matrix ``name`` is quantized; of Q4_K_M, llama.cpp's rule."""
        if self.file_type != LlamaFileType.MOSTLY_Q4_K_M:
            return _Kind.Q8_0
        eighth = self.layers // 8
        is_important = layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
        if name == "output" or (name in {"attn_v", "ffn_down"} and is_important):
            return _Kind.Q6_K
        return _Kind.Q4_K


SHAPES = {
    "100m": Shape("llama", 12, 768, 12, 12, 2048, 32_000),
    "q05": Shape("qwen2", 24, 896, 14, 2, 4864, 151_936, is_tied=True, has_bias=True),
    "1b": Shape(
        *("llama", 22, 2048, 32, 4, 5632, 32_000),
        file_type=LlamaFileType.MOSTLY_Q4_K_M,
    ),
    "kv8b": Shape("llama", 32, 1024, 8, 8, 256, 32_000),
}
COMMON = ("100m", "q05")
"""What benchmarks run on if they are not told."""


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """The model's file, written if it is not there."""
    path = folder / f"{name}-v{_VERSION}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _write(SHAPES[name], partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def words(count: int, random: np.random.Generator) -> str:
    """``count`` words of three letters, each a token of its own in both models."""
    letters = np.array(list(string.ascii_lowercase))
    return " ".join("".join(word) for word in random.choice(letters, (count, 3)))


def vocabulary(size: int) -> tuple[list[str], int]:
    """Token texts, and the number of the first that answers may contain."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += ["▁", *(chr(code) for code in range(33, 127))]
    first_word = len(texts)
    letters = string.ascii_lowercase
    every = (
        "".join(word)
        for length in (1, 2, 3, 4)
        for word in itertools.product(letters, repeat=length)
    )
    texts += [f"▁{word}" for word in itertools.islice(every, size - first_word)]
    assert len(texts) == size
    return texts, first_word


def _write(shape: Shape, path: Path) -> None:
    writer = GGUFWriter(path, shape.architecture)
    texts, first_word = vocabulary(shape.vocab)
    _add_fields(writer, shape)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * 259 + [float(len(text)) for text in texts[259:]])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (shape.vocab - 259))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    _add_tensors(writer, shape, first_word)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_fields(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_name(f"random {shape.architecture} {shape.layers}x{shape.width}")
    writer.add_file_type(int(shape.file_type))
    writer.add_context_length(32_768)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(1_000_000.0)


def _add_tensors(writer: GGUFWriter, shape: Shape, first_word: int) -> None:
    random = np.random.default_rng(0)
    kv_width = shape.head_size * shape.kv_heads

    def matrix(name: str, rows: int, columns: int, spread: float = 1.0, layer: int = -1) -> None:
        kind = shape.kind_of(name, layer)
        blocks = _BLOCKS[kind](random, (rows, columns), spread / columns**0.5)
        if name == ("token_embd" if shape.is_tied else "output"):
            blocks[:first_word] = 0
        prefix = "" if layer < 0 else f"blk.{layer}."
        writer.add_tensor(f"{prefix}{name}.weight", blocks.reshape(rows, -1), raw_dtype=kind)

    def vector(name: str, values: NDArray[np.float32]) -> None:
        writer.add_tensor(name, values)

    ones = np.ones(shape.width, np.float32)
    matrix("token_embd", shape.vocab, shape.width, spread=2.0)
    vector("output_norm.weight", ones)
    if not shape.is_tied:
        matrix("output", shape.vocab, shape.width, spread=2.0)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        vector(f"{block}.attn_norm.weight", ones)
        vector(f"{block}.ffn_norm.weight", ones)
        for name, rows in (("q", shape.width), ("k", kv_width), ("v", kv_width)):
            matrix(f"attn_{name}", rows, shape.width, layer=layer)
            if shape.has_bias:
                vector(f"{block}.attn_{name}.bias", np.zeros(rows, np.float32))
        matrix("attn_output", shape.width, shape.width, layer=layer)
        matrix("ffn_gate", shape.feed_forward, shape.width, layer=layer)
        matrix("ffn_up", shape.feed_forward, shape.width, layer=layer)
        matrix("ffn_down", shape.width, shape.feed_forward, layer=layer)


# Bytes of a quantized matrix (rows, columns) of random weights with a mean of 0 and the standard
# deviation ``spread``, as (rows, blocks, bytes of a block). Layouts: ggml-common.h of llama.cpp.


def _q8_0(random: _Random, size: tuple[int, int], spread: float) -> NDArray[np.uint8]:
    """32 weights: a float16 scale, then integers from -127 to 127."""
    blocks = random.integers(-127, 128, (size[0], size[1] // 32, 34), np.int8).view(np.uint8)
    blocks[..., :2] = _float16(spread / 73.3)
    return blocks


def _q4_k(random: _Random, size: tuple[int, int], spread: float) -> NDArray[np.uint8]:
    """256 weights: float16 factors of scales and minima, those in 12 bytes, then nibbles. Here, all
    scales and minima are 8.
    """
    blocks = random.integers(0, 256, (size[0], size[1] // 256, 144), np.uint8)
    factor = spread / (8 * 4.61)
    blocks[..., :2] = _float16(factor)
    blocks[..., 2:4] = _float16(7.5 * factor)
    blocks[..., 4:12] = 8
    blocks[..., 12:16] = 0x88
    return blocks


def _q6_k(random: _Random, size: tuple[int, int], spread: float) -> NDArray[np.uint8]:
    """256 weights: low nibbles, high pairs of bits, 16 scales (here 64), then their factor."""
    blocks = random.integers(0, 256, (size[0], size[1] // 256, 210), np.uint8)
    blocks[..., 192:208] = 64
    blocks[..., 208:] = _float16(spread / (64 * 18.5))
    return blocks


def _float16(value: float) -> NDArray[np.uint8]:
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


_BLOCKS = {_Kind.Q8_0: _q8_0, _Kind.Q4_K: _q4_k, _Kind.Q6_K: _q6_k}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the models that the benchmarks run on.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for name in SHAPES:
        start = time.perf_counter()
        path = path_of(name, arguments.folder)
        seconds = time.perf_counter() - start
        print(f"{path}  {path.stat().st_size / 1e6:.0f} MB  {seconds:.1f} s")


if __name__ == "__main__":
    main()
