from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, NotFound
from ollama_async.core.scripted_models import Script
from ollama_async.create.builder import create_model
from ollama_async.store.catalog import Catalog
from ollama_async.store.model import ModelListEntry
from ollama_async.store.store import Store


@pytest.fixture
def store(tmp_path: Path, tiny_gguf: Any) -> Store:
    store = Store(tmp_path)
    data = tiny_gguf().build()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with store.open_blob(digest) as writer:
        writer.write(data)
        writer.commit()
    for name in ("real", "both"):
        list(create_model(store, CreateRequest(model=name, files={"x.gguf": digest})))
    return store


def listed(catalog: Catalog) -> list[ModelListEntry]:
    return catalog.complete_list(itertools.chain.from_iterable(catalog.scan()))


def test_scripted_names_hide_the_stores(store: Store) -> None:
    catalog = Catalog(store, {"Echo": Script(), "both": Script()})
    model = catalog.find("echo:latest")
    assert (model.engine, model.key, model.path) == ("scripted", "scripted:Echo", "Echo")
    assert (model.size, model.summary.train_ctx, model.summary.weights_bytes) == (0, 0, 0)
    assert len(model.digest) == 64
    assert catalog.find_cached("ECHO") is model
    assert catalog.find("both").engine == "scripted"
    assert catalog.find("real").engine == "llama_cpp"
    assert [each.name for each in listed(catalog)] == ["Echo:latest", "both:latest", "real:latest"]


def test_without_scripts_only_the_store_counts(store: Store) -> None:
    catalog = Catalog(store)
    assert {model.name for model in listed(catalog)} == {"real:latest", "both:latest"}
    with pytest.raises(NotFound, match="model 'echo' not found"):
        catalog.find("echo")
    with pytest.raises(BadRequest):
        catalog.find_cached("no name")


def test_a_scripted_name_must_be_a_name(store: Store) -> None:
    with pytest.raises(ValueError, match="invalid model name"):
        Catalog(store, {"a b": Script()})


def test_scripts_may_embed_or_rank(store: Store) -> None:
    catalog = Catalog(store, {"e": Script(dimensions=8), "r": Script(ranks=True), "c": Script()})
    assert catalog.find("e").capabilities == ("embedding",)
    assert catalog.find("r").capabilities == ("embedding",)
    assert catalog.find("c").capabilities == ("completion",)
    assert catalog.find("e").summary.embedding_length == 8
