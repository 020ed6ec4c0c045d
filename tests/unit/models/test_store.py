from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_async.api.ollama import CreateRequest, Message
from ollama_async.errors import BadRequest, Forbidden, LoadFailed, NotFound, StorageFailed
from ollama_async.models import storage
from ollama_async.models.manifest import Layer
from ollama_async.models.model import Model
from ollama_async.models.store import Store

MODEL = "application/vnd.ollama.image.model"


def made(store: Store, **fields: Any) -> list[str]:
    return [status["status"] for status in store.create(CreateRequest(**fields))]


def blobs(store: Store) -> set[str]:
    return {path.name.replace("-", ":") for path in (store.root / "blobs").iterdir()}


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


# ----------------------------------------------------------------- create and find


def test_a_gguf_becomes_a_model(store: Store, tiny: str) -> None:
    statuses = made(
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
    assert model.path == str(store.blob_path(tiny))
    assert model.key == model.blob_digest == tiny
    assert model.details.family == "llama"
    assert model.details.quantization_level == "F32"
    assert model.details.parameter_size == "96"
    assert model.capabilities == ("completion",)
    assert model.facts.cache_bytes_per_token == 128


def test_the_files_are_as_ollama_writes_them(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny}, parameters={"stop": ["<&>"], "seed": 1})
    manifest = manifest_of(store, "registry.ollama.ai/library/m/latest")
    assert list(manifest) == ["schemaVersion", "mediaType", "config", "layers"]
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    size = store.blob_path(tiny).stat().st_size
    assert manifest["layers"][0] == {
        "mediaType": MODEL,
        "digest": tiny,
        "size": size,
        "from": "tiny.gguf",
    }
    params = store.blob_path(manifest["layers"][1]["digest"])
    assert params.read_bytes() == b'{"seed":1,"stop":["\\u003c\\u0026\\u003e"]}\n'
    config = store.blob_path(manifest["config"]["digest"])
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
    made(
        store,
        model="base",
        files={"tiny.gguf": tiny},
        system="old",
        template="{{ .Prompt }}{{ if .Tools }}{{ .Suffix }}{{ end }}",
        license="MIT",
        parameters={"top_k": 1, "seed": 7},
        messages=[Message(role="user", content="hi")],
    )
    statuses = made(
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
    made(store, model="m", files={"tiny.gguf": tiny}, system="one")
    made(store, model="other", from_="m")
    before = blobs(store)
    made(store, model="m", from_="m", system="two")
    made(store, model="m", from_="m", system="three")
    assert store.find("m").system == "three"
    assert store.find("other").system == "one"
    assert len(blobs(store) - before) == 1  # the new system text; the config is shared


def test_a_new_spelling_keeps_the_old_one(store: Store, tiny: str) -> None:
    made(store, model="MyModel:V1", files={"tiny.gguf": tiny})
    made(store, model="mymodel:v1", from_="MYMODEL:v1", system="x")
    made(store, model="mymodel:V2", from_="mymodel:v1")
    assert sorted(model.name for model in store.list()) == ["MyModel:V1", "MyModel:V2"]
    assert store.find("MYMODEL:V1").system == "x"


def test_adapters_and_projectors_are_found_by_their_headers(
    store: Store, adapted: tuple[bytes, bytes], gguf: Any, upload: Callable[[bytes], str]
) -> None:
    projector = upload(gguf("clip").build())
    base, adapter = map(upload, adapted)
    made(store, model="m", files={"p.gguf": projector, "base": base}, adapters={"a.gguf": adapter})
    model = store.find("m")
    assert model.blob_digest == base
    assert model.projectors == (str(store.blob_path(projector)),)
    assert model.adapters == (str(store.blob_path(adapter)),)
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
        store.create(CreateRequest(**{"model": "m"} | fields))
    assert text in caught.value.message


def test_a_base_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="model 'nope' not found"):
        store.create(CreateRequest(model="m", from_="nope"))


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
            made(store, model="m", files={"x.gguf": digest})
    assert store.list() == []
    assert not (store.root / "manifests").exists()


def test_a_text_that_could_not_be_read_again_is_refused(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="the system is larger than 1048576 bytes"):
        made(store, model="m", files={"tiny.gguf": tiny}, system="x" * 1_048_577)
    made(store, model="m", files={"tiny.gguf": tiny}, system="x" * 1_048_576)
    assert len(store.find("m").system) == 1_048_576


def test_a_crowd_of_licenses_is_refused_before_anything_is_written(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="at most 64 licenses"):
        made(store, model="m", files={"t.gguf": tiny}, license=[str(each) for each in range(65)])
    assert blobs(store) == {tiny}


def test_a_manifest_that_could_not_be_read_again_is_refused(store: Store, tiny: str) -> None:
    with pytest.raises(BadRequest, match="the manifest is larger than 4194304 bytes"):
        made(store, model="m", files={"x" * (4 << 20) + ".gguf": tiny})
    assert store.list() == []


def test_a_license_that_the_base_has_is_not_put_twice(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny}, license=["MIT", "BSD"], system="MIT")
    for _ in range(3):
        made(store, model="m", from_="m", license="MIT")
    assert licenses(store.find("m")) == ["BSD", "MIT"]
    assert store.find("m").system == "MIT"


@pytest.mark.parametrize("name", ["weights.bin", "WEIGHTS.GGUF", "weights.q8_0", "weights"])
def test_a_gguf_is_known_by_its_first_bytes_whatever_its_name(
    store: Store, tiny: str, upload: Callable[[bytes], str], name: str
) -> None:
    made(store, model="m", files={name: tiny})
    assert store.find("m").blob_digest == tiny
    with pytest.raises(BadRequest, match=r"^unknown type$"):
        made(store, model="m", files={name: upload(b"else")})


def test_a_name_is_created_as_it_will_be_found(store: Store, tiny: str) -> None:
    made(store, model=" m:local ", files={"tiny.gguf": tiny})
    assert store.find("m:local").name == store.find("m").name == "m:latest"
    with pytest.raises(Forbidden, match="cloud is disabled"):
        made(store, model="m:cloud", files={"tiny.gguf": tiny})
    with pytest.raises(BadRequest, match=r"^invalid model name$"):
        made(store, model=" ", files={"tiny.gguf": tiny})


def test_two_models_in_one_create_are_refused(
    store: Store, tiny: str, tiny_gguf: Any, upload: Callable[[bytes], str]
) -> None:
    other = upload(tiny_gguf(x="y").build())
    with pytest.raises(BadRequest, match="2 of the files are models"):
        made(store, model="m", files={"a.gguf": tiny, "b.gguf": other})


# ----------------------------------------------------------------- lookups


def test_an_unknown_model_is_named_as_it_was_sent(store: Store) -> None:
    with pytest.raises(NotFound, match=r"^model ' Nope:X ' not found$"):
        store.find(" Nope:X ")
    with pytest.raises(BadRequest, match=r"^invalid model name$"):
        store.find("a b")
    with pytest.raises(Forbidden, match=r"^ollama cloud is disabled"):
        store.find("x:cloud")


def test_a_name_longer_than_the_disk_allows_is_not_found(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    name = "h" * 300 + "/ns/m"
    for call in (store.find, store.delete):
        with pytest.raises(NotFound):
            call(name)
    with pytest.raises(StorageFailed, match="too long"):
        made(store, model=name, from_="m")


def test_only_an_unchanged_model_is_known_without_blocking(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    assert store.find_cached("M:local") is None
    model = store.find("M:local")
    assert store.find_cached("M:local") is model
    assert store.find_cached("m") is model
    made(store, model="m", from_="m", system="changed")
    assert store.find_cached("m") is None
    assert store.find("m").system == "changed"
    store.delete("m")
    assert store.find_cached("m") is None


def test_an_exact_spelling_wins(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
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
        made(store, model=name, files={"tiny.gguf": tiny}, system=name)
        path = store.root / f"manifests/registry.ollama.ai/library/{name}/latest"
        os.utime(path, (1000 + number, 1000 + number))
    library = store.root / "manifests/registry.ollama.ai/library"
    (library / "d/latest").write_text("{")
    (library / ".DS_Store").write_text("")
    (library / "e/f").mkdir(parents=True)
    assert [model.name for model in store.list()] == ["c:latest", "b:latest", "a:latest"]
    assert store.list()[0].modified_at == 1002
    store.blob_path(tiny).unlink()
    assert store.list() == []
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
    made(store, model="good", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/bad/latest"
    path.parent.mkdir()
    path.write_bytes(content)
    assert [model.name for model in store.list()] == ["good:latest"]
    with pytest.raises(LoadFailed, match="model 'bad:latest' is broken"):
        store.find("bad")
    store.delete("bad")
    with pytest.raises(NotFound):
        store.find("bad")


def test_models_that_live_elsewhere_are_refused(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/m/latest"
    config = b'{"remote_host":"https://ollama.com","remote_model":"big"}'
    digest, _ = store._shelf.blobs.put(config)
    path.write_text(json.dumps({"config": {"digest": digest, "size": 1}, "layers": []}))
    with pytest.raises(BadRequest, match=r"^this server cannot run this remote model$"):
        store.find("m")
    assert store.list() == []


# ----------------------------------------------------------------- delete and prune


def test_delete_keeps_what_others_need(store: Store, tiny: str) -> None:
    made(store, model="a", files={"tiny.gguf": tiny}, system="a")
    made(store, model="b", from_="a", system="b")
    store.delete("A")
    assert store.has_blob(tiny)
    assert store.find("b").system == "b"
    store.delete("b")
    assert blobs(store) == set()
    assert list((store.root / "manifests").iterdir()) == []
    with pytest.raises(NotFound, match=r"^model 'b' not found$"):
        store.delete("b")
    with pytest.raises(BadRequest, match=r'^name "b c" is invalid$'):
        store.delete("b c")


def test_delete_keeps_all_blobs_while_a_manifest_is_corrupt(store: Store, tiny: str) -> None:
    made(store, model="a", files={"tiny.gguf": tiny})
    made(store, model="b", from_="a")
    (store.root / "manifests/registry.ollama.ai/library/b/latest").write_text("{")
    store.delete("a")
    assert store.has_blob(tiny)


def test_prune_removes_only_what_is_old_and_unneeded(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    made(store, model="a", files={"tiny.gguf": tiny})
    old, new = upload(b"old"), upload(b"new")
    folder = store.root / "blobs"
    partial = folder / "sha256-abc-partial"
    partial.write_bytes(b"")
    (folder / ".tmp-new").write_bytes(b"")
    leftover = store.root / "manifests/registry.ollama.ai/library/a/.tmp-x"
    leftover.write_bytes(b"")
    (store.root / "manifests/empty/er").mkdir(parents=True)
    for path in (store.blob_path(old), partial, leftover, store.blob_path(tiny)):
        age(path)
    assert store.prune() == 3
    assert store.has_blob(new)
    assert store.has_blob(tiny)
    assert not store.has_blob(old)
    assert (folder / ".tmp-new").exists()
    assert not leftover.exists()
    assert not (store.root / "manifests/empty").exists()
    assert store.find("a")


def test_what_somebody_is_about_to_use_is_not_pruned(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    """Another server that starts on the same store must not spoil what goes on in this one."""
    asked, pulled, created = upload(b"asked"), upload(b"pulled"), tiny
    for digest in (asked, pulled, created):
        age(store.blob_path(digest))
    assert store.has_blob(asked)
    assert store.arrivals().has(Layer("", pulled, len(b"pulled")))
    work = store.create(CreateRequest(model="m", files={"tiny.gguf": created}))
    assert Store(store.root).prune() == 0
    assert list(work)[-1] == {"status": "success"}


def test_what_is_being_written_is_not_pruned_however_long_it_takes(store: Store) -> None:
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        (path,) = (store.root / "blobs").iterdir()
        age(path)
        assert Store(store.root).prune() == 0
        writer.write(b"x")
    path.touch()  # as a killed process would have left it
    then = time.time() - 120
    os.utime(path, (then, then))
    assert store.prune() == 1


def test_prune_does_nothing_beside_a_corrupt_manifest_or_if_told_so(
    store: Store, tiny: str, upload: Callable[[bytes], str]
) -> None:
    old = upload(b"old")
    age(store.blob_path(old))
    assert Store(store.root, keeps_unused=True).prune() == 0
    made(store, model="a", files={"tiny.gguf": tiny})
    path = store.root / "manifests/registry.ollama.ai/library/a/latest"
    path.write_text("{")
    assert store.prune() == 0
    assert store.blob_path(old).exists()  # asking the store would keep it
    path.unlink()
    assert store.prune() == 1


def test_an_empty_store_needs_no_folder(store: Store) -> None:
    assert store.list() == []
    assert store.prune() == 0
    with pytest.raises(NotFound):
        store.find("x")
    with pytest.raises(NotFound):
        store.delete("x")
    assert not store.root.exists()


# ----------------------------------------------------------------- blobs


def test_a_mismatched_upload_leaves_nothing(store: Store) -> None:
    expected, got = f"sha256:{'0' * 64}", f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    with store.open_blob(expected.replace(":", "-")) as writer:
        writer.write(b"x")
        with pytest.raises(BadRequest) as caught:
            writer.commit()
    assert caught.value.message == f'digest mismatch, expected "{expected}", got "{got}"'
    assert blobs(store) == set()


def test_an_abandoned_upload_leaves_nothing(store: Store) -> None:
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        writer.write(b"x")
    assert blobs(store) == set()


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_a_digest_of_another_form_is_refused(store: Store, digest: str) -> None:
    for call in (store.has_blob, store.blob_path, store.open_blob):
        with pytest.raises(BadRequest, match=r"^invalid digest format$"):
            call(digest)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on the disk of the model store"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "is not writable"),
        (errno.EROFS, "is not writable"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_disk_says_is_explained(tmp_path: Path, number: int, text: str) -> None:
    with pytest.raises(StorageFailed, match=text), storage.storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))


class FullDisk:
    """Stands in for ``os`` in the storage module: writing fails once ``left`` bytes are used."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, descriptor: int, data: memoryview) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(descriptor, data[: self.left])
        self.left -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Syncs:
    """The operating system, and which folders were made durable; ``wanted`` is looked at then."""

    def __init__(self, root: Path, wanted: str) -> None:
        self._root = root
        self._wanted = root / "blobs" / wanted.replace(":", "-")
        self.synced: dict[str, bool] = {}

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.synced[path.relative_to(self._root).as_posix()] = self._wanted.exists()
        os.fsync(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_new_folders_and_a_removal_outlast_a_power_cut(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(store.root, tiny)
    monkeypatch.setattr(storage, "os", syncs)
    made(store, model="m", files={"tiny.gguf": tiny})
    host = "manifests/registry.ollama.ai"
    expected = {".", "blobs", "manifests", host, f"{host}/library", f"{host}/library/m"}
    assert set(syncs.synced) == expected
    syncs.synced.clear()
    store.delete("m")
    assert syncs.synced == {f"{host}/library/m": True}  # while the blob was still there
    assert not store.has_blob(tiny)


def test_a_full_disk_during_an_upload_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "os", FullDisk(10))
    with store.open_blob(f"sha256:{'0' * 64}") as writer:
        writer.write(b"12345")
        with pytest.raises(StorageFailed, match="no space left"):
            writer.write(b"1234567890")
    assert blobs(store) == set()


def test_a_full_disk_during_create_leaves_the_old_model(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, model="m", files={"tiny.gguf": tiny}, system="old")
    before = store.find("m")
    for left in (0, 3, 9, 60, 200):
        monkeypatch.setattr(storage, "os", FullDisk(left))
        with pytest.raises(StorageFailed, match="no space left"):
            made(store, model="m", from_="m", system="quite new", parameters={"top_k": 3})
        assert store.find("m").digest == before.digest
        leftovers = [path for path in store.root.rglob("*") if path.name.startswith(".tmp-")]
        assert leftovers == []


def test_a_file_size_limit_of_the_system_is_explained(store: Store) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ollama_async.errors import StorageFailed\n"
        "from ollama_async.models.store import Store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with Store(Path(sys.argv[1])).open_blob('sha256:' + '0' * 64) as writer:\n"
        "        writer.write(bytes(8192))\n"
        "except StorageFailed as error:\n"
        "    print(error.message)\n"
    )
    done = run(program, store.root)
    assert "too large for the disk" in done
    assert blobs(store) == set()


def test_an_unusable_store_is_explained(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    store = Store(tmp_path / "models")
    with pytest.raises(StorageFailed, match=r"model store .*models"):
        store.open_blob(f"sha256:{'0' * 64}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_a_store_without_rights_is_explained(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir(mode=0o555)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ollama_async.errors import StorageFailed\n"
        "from ollama_async.models.store import Store\n"
        "os.chdir(sys.argv[1])\n"
        "os.seteuid(65534)\n"
        "try:\n"
        "    Store(Path('.')).open_blob('sha256:' + '0' * 64)\n"
        "except StorageFailed as error:\n"
        "    print(error.message)\n"
    )
    assert "is not writable" in run(program, root)


def run(program: str, root: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, str(root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


# ----------------------------------------------------------------- several writers


def test_a_killed_upload_leaves_a_store_that_prune_cleans(store: Store) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ollama_async.models.store import Store\n"
        "writer = Store(Path(sys.argv[1])).open_blob('sha256:' + '0' * 64)\n"
        "writer.write(bytes(100_000))\n"
        "print('written', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    assert not store.has_blob(f"sha256:{'0' * 64}")
    (leftover,) = (store.root / "blobs").iterdir()
    assert store.prune() == 0
    age(leftover)
    assert store.prune() == 1


CREATOR = """
import itertools, sys
from pathlib import Path
from ollama_async.api.ollama import CreateRequest
from ollama_async.models.store import Store
store = Store(Path(sys.argv[1]))
for turn in itertools.count():
    list(store.create(CreateRequest(model="m", from_="m", system=f"{turn}")))
    print("created", flush=True)
"""


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_a_killed_create_leaves_a_whole_model(store: Store, tiny: str, turns: int) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    with subprocess.Popen(
        [sys.executable, "-c", CREATOR, str(store.root)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(turns):
            assert child.stdout.readline() == "created\n"
        child.send_signal(signal.SIGKILL)
    assert store.find("m").system.isdigit()
    made(store, model="m", from_="m", system="after")  # the lock died with its holder
    assert store.find("m").system == "after"
    for path in store.root.rglob("*"):
        if path.is_file():
            age(path)
    store.prune()
    assert blobs(store) == store._shelf.referenced()


WRITER = """
import sys
from pathlib import Path
from ollama_async.api.ollama import CreateRequest
from ollama_async.models.store import Store
store, me = Store(Path(sys.argv[1])), sys.argv[2]
for turn in range(15):
    list(store.create(CreateRequest(model=me, from_="base", system=f"{me} {turn}")))
    if turn % 3 == 2:
        store.delete(me)
    else:
        assert store.find(me).system == f"{me} {turn}"
list(store.create(CreateRequest(model=me, from_="base", system="common")))
"""


def test_two_processes_share_one_store(store: Store, tiny: str) -> None:
    made(store, model="base", files={"tiny.gguf": tiny})
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.root), name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for child in children:
        _, errors = child.communicate(timeout=50)
        assert child.returncode == 0, errors
    assert {model.name: model.system for model in store.list()} == {
        "base:latest": "",
        "one:latest": "common",
        "two:latest": "common",
    }
    needed = store._shelf.referenced()
    assert needed is not None
    assert blobs(store) == needed


def test_threads_that_replace_one_name_leave_one_whole_model(store: Store, tiny: str) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    errors: list[Exception] = []

    def replace(number: int) -> None:
        try:
            for turn in range(5):
                made(store, model="m", from_="m", system=f"{number} {turn}")
                store.find("m")
        except Exception as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=replace, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.find("m").system.endswith(" 4")


def test_a_lock_that_is_never_free_is_an_error(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, model="m", files={"tiny.gguf": tiny})
    monkeypatch.setattr(storage, "_LOCK_TIMEOUT_S", 0.0)
    with (
        storage.locked(store.root),
        pytest.raises(StorageFailed, match="locked by another process"),
    ):
        store.delete("m")
    store.delete("m")
