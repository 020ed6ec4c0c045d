"""Models found by their names, whoever wrote the store, and the list of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import Any

import pytest

from ollama_async.core.errors import BadRequest, Forbidden, LoadFailed, NotFound, StorageFailed
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import MODEL, created, list_models


def test_an_unknown_model_is_named_as_it_was_sent(store: Store) -> None:
    with pytest.raises(NotFound, match=r"^model ' Nope:X ' not found$"):
        store.find(" Nope:X ")
    with pytest.raises(BadRequest, match=r"^invalid model name$"):
        store.find("a b")
    with pytest.raises(Forbidden, match=r"^ollama cloud is disabled"):
        store.find("x:cloud")


def test_a_name_longer_than_the_disk_allows_is_not_found(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    name = "h" * 300 + "/ns/m"
    for call in (store.find, store.delete):
        with pytest.raises(NotFound):
            call(name)
    with pytest.raises(StorageFailed, match="too long"):
        created(store, model=name, from_="m")


def test_only_an_unchanged_model_is_found_without_blocking(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    assert store.find_cached("M:local") is None
    model = store.find("M:local")
    assert store.find_cached("M:local") is model
    assert store.find_cached("m") is model
    created(store, model="m", from_="m", system="changed")
    assert store.find_cached("m") is None
    assert store.find("m").system == "changed"
    store.delete("m")
    assert store.find_cached("m") is None


def test_an_exact_spelling_wins(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    library = store.root / "manifests/registry.ollama.ai/library"
    shutil.copytree(library / "m", library / "M")
    assert store.find("M").name == "M:latest"
    assert store.find("m").name == "m:latest"


def test_a_store_that_ollama_wrote_is_read_as_it_is(store: Store, tiny_gguf: Any) -> None:
    gguf = tiny_gguf().build()
    digest = hashlib.sha256(gguf).hexdigest()
    config = (
        b'{"model_format":"gguf","MODEL_FAMILY":"llama","model_families":null,"rootfs":{"x":1}}'
    )
    config_digest = hashlib.sha256(config).hexdigest()
    folder = store.root / "blobs"
    folder.mkdir(parents=True)
    (folder / f"sha256:{digest}").write_bytes(gguf)
    (folder / f"sha256-{config_digest}").write_bytes(config)
    manifest = {
        "SchemaVersion": 2,
        "mediaType": "x",
        "annotations": {"a": [1]},
        "config": {"digest": f"sha256-{config_digest.upper()}", "size": len(config)},
        "layers": [
            {"mediaType": MODEL, "digest": f"sha256:{digest}", "size": len(gguf), "urls": []},
            {"mediaType": "application/vnd.ollama.image.embed", "digest": f"sha256:{'0' * 64}"},
        ],
    }
    path = store.root / "manifests/hf.co/Me/Model-GGUF/Q4_K_M"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    model = store.find("hf.co/me/model-gguf:q4_k_m")
    assert model.name == "hf.co/Me/Model-GGUF:Q4_K_M"
    assert model.details.family == "llama"
    assert model.details.families is None
    assert model.path == str(folder / f"sha256:{digest}")
    assert store.has_blob(f"sha256-{digest.upper()}")
    store.delete("hf.co/me/model-gguf:q4_k_m")
    assert list(folder.iterdir()) == []


def test_the_list_is_newest_first_and_leaves_out_what_is_broken(store: Store, tiny: str) -> None:
    for number, name in enumerate(("a", "b", "c", "d")):
        created(store, model=name, files={"tiny.gguf": tiny}, system=name)
        path = store.root / f"manifests/registry.ollama.ai/library/{name}/latest"
        os.utime(path, (1000 + number, 1000 + number))
    library = store.root / "manifests/registry.ollama.ai/library"
    (library / "d/latest").write_text("{")
    (library / ".DS_Store").write_text("")
    (library / "e/f").mkdir(parents=True)
    assert [model.name for model in list_models(store)] == ["c:latest", "b:latest", "a:latest"]
    assert list_models(store)[0].modified_at == 1002
    store.layout.blobs.path(tiny).unlink()
    assert list_models(store) == []
    with pytest.raises(LoadFailed, match=r"model 'c:latest' is broken: sha256-.* is missing"):
        store.find("c")
    with pytest.raises(LoadFailed, match=r"model 'd:latest' is broken"):
        store.find("d")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'"x"', b"\xff" * 40, b'{"layers":[{"digest":"sha256:../x"}]}', b"[" * 100_000],
)
def test_a_hostile_manifest_breaks_its_own_model_only(
    store: Store, tiny: str, content: bytes
) -> None:
    created(store, model="good", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/bad/latest"
    path.parent.mkdir()
    path.write_bytes(content)
    assert [model.name for model in list_models(store)] == ["good:latest"]
    with pytest.raises(LoadFailed, match="model 'bad:latest' is broken"):
        store.find("bad")
    store.delete("bad")
    with pytest.raises(NotFound):
        store.find("bad")


def test_models_that_live_elsewhere_are_refused(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/m/latest"
    config = b'{"remote_host":"https://ollama.com","remote_model":"big"}'
    digest, _ = store.layout.blobs.put(config)
    path.write_text(json.dumps({"config": {"digest": digest, "size": 1}, "layers": []}))
    with pytest.raises(BadRequest, match=r"^this server cannot run this remote model$"):
        store.find("m")
    assert list_models(store) == []
