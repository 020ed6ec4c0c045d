"""The one operation that replaces a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_async.core.model_names import ModelName
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import Layer, Manifest, layer_type

NAME = ModelName.parse("Model")


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(tmp_path)


@pytest.fixture
def put(layout: StoreLayout) -> Callable[[bytes], str]:
    """Stores a blob; its digest."""
    return lambda data: layout.blobs.put(data)[0]


def replace(layout: StoreLayout, name: ModelName, *digests: str) -> bool:
    layers = [Layer(layer_type("system"), digest, 1) for digest in digests]
    data = encode_line(Manifest(layers=layers))
    with layout.changing(name):
        return layout.replace_manifest(name, data, set(digests))


def referenced(layout: StoreLayout, name: ModelName) -> set[str]:
    path = layout.manifests.locate(name)
    manifest = layout.read_manifest(path) if path else None
    return manifest.digests if manifest else set()


def test_a_new_name_replaces_nothing(layout: StoreLayout, put: Callable[[bytes], str]) -> None:
    other = put(b"of nobody")
    assert not replace(layout, NAME, put(b"a"))
    assert referenced(layout, NAME) == {put(b"a")}
    assert layout.blobs.has(other)


def test_what_only_the_old_model_needed_is_removed(
    layout: StoreLayout, put: Callable[[bytes], str]
) -> None:
    old, kept, new = map(put, (b"old", b"kept", b"new"))
    replace(layout, NAME, old, kept)
    assert replace(layout, NAME, kept, new)
    assert referenced(layout, NAME) == {kept, new}
    assert [layout.blobs.has(digest) for digest in (old, kept, new)] == [False, True, True]


def test_what_another_model_needs_stays(layout: StoreLayout, put: Callable[[bytes], str]) -> None:
    shared, new = map(put, (b"shared", b"new"))
    replace(layout, ModelName.parse("other"), shared)
    replace(layout, NAME, shared)
    assert replace(layout, NAME, new)
    assert layout.blobs.has(shared)


def test_the_same_layers_leave_nothing_unused(
    layout: StoreLayout, put: Callable[[bytes], str]
) -> None:
    replace(layout, NAME, put(b"a"))
    assert not replace(layout, NAME, put(b"a"))
    assert layout.blobs.has(put(b"a"))


def test_a_store_that_keeps_unused_blobs_removes_none(
    tmp_path: Path, put: Callable[[bytes], str]
) -> None:
    layout = StoreLayout(tmp_path, keeps_unused=True)
    old = put(b"old")
    replace(layout, NAME, old)
    assert not replace(layout, NAME, put(b"new"))
    assert layout.blobs.has(old)


def test_the_name_keeps_its_first_spelling(
    layout: StoreLayout, put: Callable[[bytes], str]
) -> None:
    replace(layout, NAME, put(b"a"))
    replace(layout, ModelName.parse("MODEL:LATEST"), put(b"b"))
    assert [layout.manifests.name_of(path).short for path in layout.manifests.paths()] == [
        "Model:latest"
    ]
    assert referenced(layout, NAME) == {put(b"b")}


def test_a_broken_manifest_is_replaced_and_no_blob_removed(
    layout: StoreLayout, put: Callable[[bytes], str]
) -> None:
    old = put(b"old")
    replace(layout, NAME, old)
    path = layout.manifests.locate(NAME)
    assert path is not None
    Path(path).write_bytes(b"no manifest")
    assert not replace(layout, NAME, put(b"new"))
    assert layout.blobs.has(old)
    assert referenced(layout, NAME) == {put(b"new")}
