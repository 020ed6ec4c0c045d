"""Models as ``create`` makes them, and requests that it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from ollama_async.api.ollama import Message
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, Forbidden, NotFound
from ollama_async.create.builder import create_model
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import (
    MODEL,
    blobs,
    created,
    licenses,
    list_models,
    manifest_of,
    weights_digest,
)


def test_a_gguf_becomes_a_model(store: Store, tiny: str) -> None:
    statuses = created(
        store,
        model="Tiny",
        files={"tiny.gguf": tiny},
        system="Be <brief> & kind.",
        parameters={"temperature": 1.0, "stop": ["</s>"], "top_k": 5},
    )
    assert statuses[0] == "parsing GGUF"
    assert statuses[1] == f"using existing layer {tiny}"
    assert [text[:18] for text in statuses[2:5]] == ["creating new layer"] * 3
    assert statuses[-2:] == ["writing manifest", "success"]
    model = store.find("tiny")
    assert model.name == "Tiny:latest"
    assert model.system == "Be <brief> & kind."
    assert model.parameters == {"temperature": 1, "stop": ["</s>"], "top_k": 5}
    assert model.path == str(store.layout.blobs.path(tiny))
    assert model.key == weights_digest(model) == tiny
    assert model.details.family == "llama"
    assert model.details.quantization_level == "F32"
    assert model.details.parameter_size == "96"
    assert model.capabilities == ("completion",)
    assert model.summary.cache_bytes_per_token == 128


def test_the_files_are_as_ollama_writes_them(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny}, parameters={"stop": ["<&>"], "seed": 1})
    manifest = manifest_of(store, "registry.ollama.ai/library/m/latest")
    assert list(manifest) == ["schemaVersion", "mediaType", "config", "layers"]
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    size = store.layout.blobs.path(tiny).stat().st_size
    assert manifest["layers"][0] == {
        "mediaType": MODEL,
        "digest": tiny,
        "size": size,
        "from": "tiny.gguf",
    }
    params = store.layout.blobs.path(manifest["layers"][1]["digest"])
    assert params.read_bytes() == b'{"seed":1,"stop":["\\u003c\\u0026\\u003e"]}\n'
    config = store.layout.blobs.path(manifest["config"]["digest"])
    assert config.read_bytes() == (
        b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],'
        b'"model_type":"96","file_type":"F32","architecture":"amd64","os":"linux"}\n'
    )
    assert config.stat().st_mode & 0o777 == 0o644
    raw = (store.root / "manifests/registry.ollama.ai/library/m/latest").read_bytes()
    assert store.find("m").digest == hashlib.sha256(raw).hexdigest()
    assert store.find("m").size == sum(
        layer["size"] for layer in [*manifest["layers"], manifest["config"]]
    )


def test_a_model_from_a_model_inherits_and_overrides(store: Store, tiny: str) -> None:
    created(
        store,
        model="base",
        files={"tiny.gguf": tiny},
        system="old",
        template="{{ .Prompt }}{{ if .Tools }}{{ .Suffix }}{{ end }}",
        license="MIT",
        parameters={"top_k": 1, "seed": 7},
        messages=[Message(role="user", content="hi")],
    )
    statuses = created(
        store, model="me/child:v1", from_="BASE", system="new", license=["A", "B"],
        parameters={"top_k": 2},
    )  # fmt: skip
    assert f"using existing layer {tiny}" in statuses
    child = store.find("me/child:v1")
    assert child.system == "new"
    assert child.parameters == {"top_k": 2, "seed": 7}
    assert licenses(child) == ["MIT", "A", "B"]
    assert [(turn.role, turn.content) for turn in child.messages] == [("user", "hi")]
    assert child.details.parent_model == "base:latest"
    assert child.capabilities == ("completion", "tools", "insert")
    assert child.key == store.find("base").key
    assert store.find("base").system == "old"


def test_creating_a_name_again_removes_what_only_the_old_one_needed(
    store: Store, tiny: str
) -> None:
    created(store, model="m", files={"tiny.gguf": tiny}, system="one")
    created(store, model="other", from_="m")
    before = blobs(store)
    created(store, model="m", from_="m", system="two")
    created(store, model="m", from_="m", system="three")
    assert store.find("m").system == "three"
    assert store.find("other").system == "one"
    assert len(blobs(store) - before) == 1  # the new system text; the config is shared


def test_a_new_spelling_keeps_the_old_one(store: Store, tiny: str) -> None:
    created(store, model="MyModel:V1", files={"tiny.gguf": tiny})
    created(store, model="mymodel:v1", from_="MYMODEL:v1", system="x")
    created(store, model="mymodel:V2", from_="mymodel:v1")
    assert sorted(model.name for model in list_models(store)) == ["MyModel:V1", "MyModel:V2"]
    assert store.find("MYMODEL:V1").system == "x"


def test_adapters_and_projectors_are_found_by_their_headers(
    store: Store, adapted: tuple[bytes, bytes], gguf: Any, upload: Callable[[bytes], str]
) -> None:
    projector = upload(gguf("clip").build())
    base, adapter = map(upload, adapted)
    created(
        store, model="m", files={"p.gguf": projector, "base": base}, adapters={"a.gguf": adapter}
    )
    model = store.find("m")
    assert weights_digest(model) == base
    assert model.projectors == (str(store.layout.blobs.path(projector)),)
    assert model.adapters == (str(store.layout.blobs.path(adapter)),)
    assert model.adapter_bytes == 128 + 8
    assert "vision" in model.capabilities
    assert model.key == f"{base}+{adapter}+{projector}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": ""}, "invalid model name"),
        ({"model": "../x"}, "invalid model name"),
        ({}, "neither 'from' or 'files' was specified"),
        ({"files": {}}, "unknown type"),
        ({"files": {"x.gguf": ""}}, "invalid digest format"),
        ({"files": {"x.gguf": "sha256:../../etc/passwd"}}, "invalid digest format"),
        ({"files": {"/x.gguf": "TINY"}}, "file path must be relative"),
        ({"files": {"a/../x.gguf": "TINY"}}, "file path must be relative"),
        ({"files": {"../x.gguf": "TINY"}}, "file path must be relative"),
        ({"files": {"..": "TINY"}}, "file path must be relative"),
        ({"files": {"x.gguf": "sha256:" + "0" * 64}}, 'file "x.gguf" has not been uploaded'),
        ({"files": {"x.gguf": "TINY"}, "quantize": "q4_x"}, "unsupported quantization type Q4_X"),
        ({"files": {"x.gguf": "TINY"}, "quantization": "iq1_s"}, "needs an importance matrix"),
        ({"files": {"x.gguf": "TINY"}, "draft_quantize": "q8_0"}, "requires a DRAFT model"),
        ({"from_": "x", "remote_host": "https://x"}, "does not support 'remote_host'"),
        ({"from_": "x:cloud:local"}, "use either :local or :cloud"),
        (
            {"files": {"x.gguf": "TINY"}, "parameters": {"top_k": "x"}},
            'option "top_k" must be of type integer',
        ),
    ],
)
def test_a_senseless_request_is_refused_at_once(
    store: Store, tiny: str, fields: dict[str, Any], text: str
) -> None:
    if fields.get("files"):
        fields = fields | {
            "files": {
                name: digest.replace("TINY", tiny) for name, digest in fields["files"].items()
            }
        }
    with pytest.raises(BadRequest) as caught:
        create_model(store, CreateRequest(**{"model": "m"} | fields))
    assert text in caught.value.message


def test_a_missing_base_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="model 'nope' not found"):
        create_model(store, CreateRequest(model="m", from_="nope"))


def test_a_bad_gguf_never_becomes_a_model(
    store: Store, tiny_gguf: Any, upload: Callable[[bytes], str]
) -> None:
    garbage, truncated = upload(b"garbage"), upload(tiny_gguf().build()[:-1])
    split = upload(tiny_gguf().number("split.count", "u32", 2).build())
    for digest, text in (
        (garbage, "supplied file was not in GGUF format"),
        (truncated, "past the end"),
        (split, "1 of 2 parts of the model are given"),
    ):
        with pytest.raises(BadRequest, match=text):
            created(store, model="m", files={"x.gguf": digest})
    assert list_models(store) == []
    assert not (store.root / "manifests").exists()


def test_a_text_that_could_not_be_read_again_is_refused(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="the system is larger than 1048576 bytes"):
        created(store, model="m", files={"tiny.gguf": tiny}, system="x" * 1_048_577)
    created(store, model="m", files={"tiny.gguf": tiny}, system="x" * 1_048_576)
    assert len(store.find("m").system) == 1_048_576


def test_a_crowd_of_licenses_is_refused_before_anything_is_written(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="at most 64 licenses"):
        created(store, model="m", files={"t.gguf": tiny}, license=[str(each) for each in range(65)])
    assert blobs(store) == {tiny}


def test_a_manifest_that_could_not_be_read_again_is_refused(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="the manifest is larger than 1048576 bytes"):
        created(store, model="m", files={"x" * (4 << 20) + ".gguf": tiny})
    assert list_models(store) == []


def test_a_license_that_the_base_has_is_not_put_twice(store: Store, tiny: str) -> None:
    created(store, model="m", files={"tiny.gguf": tiny}, license=["MIT", "BSD"], system="MIT")
    for _ in range(3):
        created(store, model="m", from_="m", license="MIT")
    assert licenses(store.find("m")) == ["BSD", "MIT"]
    assert store.find("m").system == "MIT"


@pytest.mark.parametrize("name", ["weights.bin", "WEIGHTS.GGUF", "weights.q8_0", "weights"])
def test_a_gguf_is_recognized_by_its_first_bytes(
    store: Store, tiny: str, upload: Callable[[bytes], str], name: str
) -> None:
    created(store, model="m", files={name: tiny})
    assert weights_digest(store.find("m")) == tiny
    with pytest.raises(BadRequest, match=r"^unknown type$"):
        created(store, model="m", files={name: upload(b"else")})


def test_a_name_is_created_as_it_will_be_found(store: Store, tiny: str) -> None:
    created(store, model=" m:local ", files={"tiny.gguf": tiny})
    assert store.find("m:local").name == store.find("m").name == "m:latest"
    with pytest.raises(Forbidden, match="cloud is disabled"):
        created(store, model="m:cloud", files={"tiny.gguf": tiny})
    with pytest.raises(BadRequest, match=r"^invalid model name$"):
        created(store, model=" ", files={"tiny.gguf": tiny})


def test_two_models_in_one_create_are_refused(
    store: Store, tiny: str, tiny_gguf: Any, upload: Callable[[bytes], str]
) -> None:
    other = upload(tiny_gguf(x="y").build())
    with pytest.raises(BadRequest, match="2 of the files are models"):
        created(store, model="m", files={"a.gguf": tiny, "b.gguf": other})
