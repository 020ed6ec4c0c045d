"""Short helpers for tests of the store."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.create.builder import create_model
from ollama_async.store.blobs import parse_digest
from ollama_async.store.model import Model, ModelListEntry
from ollama_async.store.store import Store, newest_first

MODEL = "application/vnd.ollama.image.model"


def created(store: Store, **fields: Any) -> list[str]:
    return [status["status"] for status in create_model(store, CreateRequest(**fields))]


def list_models(store: Store) -> list[ModelListEntry]:
    return newest_first(itertools.chain.from_iterable(store.scan()))


def blobs(store: Store) -> set[str]:
    return {path.name.replace("-", ":") for path in (store.root / "blobs").iterdir()}


def needed(store: Store) -> set[str]:
    """The blobs that the store's manifests reference."""
    found: set[str] = set()
    for path in (store.root / "manifests").glob("*/*/*/*"):
        manifest = json.loads(path.read_bytes())
        found |= {layer["digest"] for layer in (*manifest["layers"], manifest["config"])}
    return found


def weights_digest(model: Model) -> str:
    return parse_digest(Path(model.path).name)


def licenses(model: Model) -> list[str]:
    return [Path(path).read_text() for path in model.licenses]


def manifest_of(store: Store, path: str) -> dict[str, Any]:
    raw = (store.root / "manifests" / path).read_bytes()
    assert raw.endswith(b"}\n")
    parsed: dict[str, Any] = json.loads(raw)
    return parsed


def age(path: Path) -> None:
    then = time.time() - 25 * 3600
    os.utime(path, (then, then))
