"""Builds small GGUF files, valid ones and deliberately broken ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NUMBER_TYPES = {
    "u8": (0, "<B"),
    "u32": (4, "<I"),
    "i32": (5, "<i"),
    "f32": (6, "<f"),
    "bool": (7, "<?"),
    "u64": (10, "<Q"),
}


class GgufBuilder:
    """Collects pairs and tensors; any part of the result can be given a lying value."""

    def __init__(self, architecture: str = "llama", version: int = 3, order: str = "<") -> None:
        self.version = version
        self.order = order
        self.pairs: list[bytes] = []
        self.tensors: list[bytes] = []
        self.data = b""
        self.pair_count: int | None = None
        self.tensor_count: int | None = None
        self.alignment = 32
        if architecture:
            self.text("general.architecture", architecture)

    @staticmethod
    def string(text: str | bytes) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        return struct.pack("<Q", len(raw)) + raw

    def raw(self, key: str | bytes, kind: int, value: bytes) -> GgufBuilder:
        self.pairs.append(self.string(key) + struct.pack("<I", kind) + value)
        return self

    def text(self, key: str, value: str | bytes) -> GgufBuilder:
        return self.raw(key, 8, self.string(value))

    def number(self, key: str, kind: str, value: float) -> GgufBuilder:
        code, layout = _NUMBER_TYPES[kind]
        return self.raw(key, code, struct.pack(layout, value))

    def numbers(self, key: str, kind: str, values: Sequence[float]) -> GgufBuilder:
        code, layout = _NUMBER_TYPES[kind]
        head = struct.pack("<IQ", code, len(values))
        return self.raw(key, 9, head + b"".join(struct.pack(layout, value) for value in values))

    def texts(self, key: str, values: Sequence[str]) -> GgufBuilder:
        head = struct.pack("<IQ", 8, len(values))
        return self.raw(key, 9, head + b"".join(map(self.string, values)))

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int = 0,
        *,
        size: int,
        offset: int | None = None,
    ) -> GgufBuilder:
        """``size`` bytes of data are appended; ``offset`` may lie about where they are."""
        start = -(-len(self.data) // self.alignment) * self.alignment
        self.data = self.data.ljust(start, b"\0") + bytes(size)
        head = self.string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        where = start if offset is None else offset
        self.tensors.append(head + struct.pack("<IQ", kind, where))
        return self

    def build(self) -> bytes:
        pairs = len(self.pairs) if self.pair_count is None else self.pair_count
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        head = b"GGUF" + struct.pack(f"{self.order}I", self.version)
        head += struct.pack("<QQ", tensors, pairs)
        head += b"".join(self.pairs) + b"".join(self.tensors)
        padded = -(-len(head) // self.alignment) * self.alignment
        return head.ljust(padded, b"\0") + self.data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path


def build_tiny(**metadata: Any) -> GgufBuilder:
    """A llama of two layers: 4 heads of 8, 2 KV heads; 96 parameters in two tensors."""
    builder = GgufBuilder()
    builder.text("general.name", "tiny").number("general.file_type", "u32", 0)
    builder.number("llama.block_count", "u32", 2).number("llama.context_length", "u32", 512)
    builder.number("llama.embedding_length", "u32", 32)
    builder.number("llama.attention.head_count", "u32", 4)
    builder.number("llama.attention.head_count_kv", "u32", 2)
    builder.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", ["<s>", "a"])
    for key, value in metadata.items():
        builder.text(key.replace("__", "."), value)
    builder.tensor("token_embd.weight", [32, 2], size=256)
    return builder.tensor("output_norm.weight", [32], size=128)


def tiny_with_output(**metadata: Any) -> GgufBuilder:
    """The same with a matrix that an adapter can change."""
    return build_tiny(**metadata).tensor("output.weight", [32, 2], size=256)


def tiny_adapter() -> GgufBuilder:
    """Of rank 1, for :func:`tiny_with_output`."""
    builder = GgufBuilder().text("general.type", "adapter").text("adapter.type", "lora")
    builder.tensor("output.weight.lora_a", [32, 1], size=128)
    return builder.tensor("output.weight.lora_b", [1, 2], size=8)
