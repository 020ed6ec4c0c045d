"""The metadata of a GGUF by type. Hostile as the rest of the header: what is missing, of another
type or absurd is "", 0 or False.
"""

from __future__ import annotations

from ollama_async.gguf.reader import Array, GgufHeader

MOST = (1 << 62) - 1
"""Keeps every number within what JSON, msgpack and C accept."""


class Keys:
    """``<arch>.`` in front of a key is understood except in :meth:`text`."""

    def __init__(self, header: GgufHeader) -> None:
        self._metadata = header.metadata
        self.architecture = self.text("general.architecture")
        parts = header.metadata.get("split.count")
        self.is_split = isinstance(parts, int) and parts > 1

    def text(self, key: str) -> str:
        value = self._metadata.get(key)
        return value if isinstance(value, str) else ""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def is_true(self, key: str) -> bool:
        return self._metadata.get(f"{self.architecture}.{key}") is True

    def count(self, key: str) -> int:
        """A number that is not negative; of an array (one value per layer) the largest."""
        return max(self.counts(key), default=0)

    def counts(self, key: str) -> list[int]:
        """One number, or one per layer."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        values = value.values if isinstance(value, Array) else (value,)
        return [
            min(max(number, 0), MOST)
            for number in values
            if isinstance(number, int) and not isinstance(number, bool)
        ]
