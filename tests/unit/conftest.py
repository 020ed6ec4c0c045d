"""Fixtures for GGUF files and a store to put them in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_async.store.store import Store
from tests.unit.gguf_files import GgufBuilder, build_tiny, tiny_adapter, tiny_with_output


@pytest.fixture(scope="session")
def adapted() -> tuple[bytes, bytes]:
    """A model, and an adapter for it."""
    return tiny_with_output().build(), tiny_adapter().build()


@pytest.fixture(scope="session")
def gguf() -> type[GgufBuilder]:
    return GgufBuilder


@pytest.fixture(scope="session")
def tiny_gguf() -> Any:
    return build_tiny


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def upload(store: Store) -> Callable[[bytes], str]:
    """Puts bytes into the store as a blob; their digest."""

    def put(data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with store.open_blob(digest) as writer:
            writer.write(data)
            writer.commit()
        return digest

    return put


@pytest.fixture
def tiny(tiny_gguf: Any, upload: Callable[[bytes], str]) -> str:
    """The digest of a small right file in the store."""
    return upload(tiny_gguf().build())
