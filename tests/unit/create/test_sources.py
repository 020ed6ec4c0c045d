"""``create`` with the text of a Modelfile, or its place on the server, as old clients ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_async.api.ollama import Message
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, Forbidden
from ollama_async.create.builder import create_model
from ollama_async.create.request import BaseMissing
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import weights_digest


def created(store: Store, *, reads_files: bool = False, **fields: Any) -> list[dict[str, Any]]:
    return list(create_model(store, CreateRequest(**fields), reads_files=reads_files))


def test_a_modelfile_can_express_all_fields(store: Store, tiny: str) -> None:
    created(store, model="base", files={"t.gguf": tiny})
    text = (
        'FROM base\nTEMPLATE "{{ .Prompt }}"\nSYSTEM """one\ntwo"""\nPARAMETER top_k 3\n'
        "PARAMETER stop a\nPARAMETER stop b\nPARAMETER low_vram 1\nLICENSE free\nLICENSE MIT\n"
        "MESSAGE user hi\nMESSAGE assistant ho\nRENDERER qwen3-coder\nPARSER qwen3.5\n"
        "REQUIRES 0.14.0\n"
    )
    assert created(store, name="old", modelfile=text)[-1] == {"status": "success"}
    created(
        store,
        model="new",
        from_="base",
        template="{{ .Prompt }}",
        system="one\ntwo",
        parameters={"top_k": 3, "stop": ["a", "b"]},
        license=["free", "MIT"],
        messages=[Message(role="user", content="hi"), Message(role="assistant", content="ho")],
        renderer="qwen3-coder",
        parser="qwen3.5",
        requires="0.14.0",
    )
    assert store.find("old").digest == store.find("new").digest


def test_fields_override_the_modelfile(store: Store, tiny: str) -> None:
    created(store, model="base", files={"t.gguf": tiny})
    text = "FROM base\nSYSTEM old\nPARAMETER top_k 3\nPARAMETER seed 4\n"
    created(store, model="m", modelfile=text, system="new", parameters={"top_k": 5})
    model = store.find("m")
    assert (model.system, model.parameters) == ("new", {"top_k": 5, "seed": 4})


def test_todays_form_does_not_look_at_a_modelfile(store: Store, tiny: str) -> None:
    created(store, model="m", files={"t.gguf": tiny}, modelfile="not one", path="/nowhere")
    assert weights_digest(store.find("m")) == tiny


def test_a_modelfile_may_name_uploads(
    store: Store,
    tiny: str,
    adapted: tuple[bytes, bytes],
    gguf: Any,
    upload: Callable[[bytes], str],
) -> None:
    base, adapter = map(upload, adapted)
    projector = upload(gguf("clip").build())
    text = f"FROM @{base}\nFROM @{projector}\nADAPTER @{adapter}\nDRAFT @{tiny}\n"
    created(store, name="m", modelfile=text)
    path = store.root / "manifests/registry.ollama.ai/library/m/latest"
    layers = json.loads(path.read_bytes())["layers"]
    kinds = {layer["mediaType"].rpartition(".")[2]: layer["digest"] for layer in layers}
    assert kinds == {"model": base, "projector": projector, "adapter": adapter, "draft": tiny}


def test_what_show_prints_makes_the_same_model(store: Store, tiny: str) -> None:
    """It names blobs by their paths, and who may talk to us may use any blob by its digest."""
    created(store, model="a", files={"t.gguf": tiny}, system="x")
    model = store.find("a")
    created(store, name="b", modelfile=f"FROM {model.path}\nSYSTEM x\n")
    assert weights_digest(store.find("b")) == tiny


# ----------------------------------------------------------------- files on the server


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Any) -> Path:
    """A model as people keep it: weights and a Modelfile beside them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    tiny_gguf().write(folder / "weights.gguf")
    (folder / "Modelfile").write_text("FROM ./weights.gguf\nSYSTEM from a file\n")
    return folder


def test_who_may_names_files(
    store: Store, folder: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.layout.blobs.path(tiny).unlink()
    statuses = created(store, reads_files=True, name="m", path=str(folder / "Modelfile"))
    size = (folder / "weights.gguf").stat().st_size
    assert statuses[1] == {
        "status": "copying file weights.gguf",
        "total": size,
        "completed": size,
    }
    model = store.find("m")
    assert (weights_digest(model), model.system) == (tiny, "from a file")
    assert model.details.parent_model == "weights.gguf"
    (folder / "Modelfile").write_text("FROM weights.gguf\n")  # no mark, but it is there
    created(store, reads_files=True, name="n", path=str(folder / "Modelfile"))
    created(store, reads_files=True, name="o", modelfile=f"FROM {folder}\n")
    monkeypatch.setenv("HOME", str(folder))
    created(store, reads_files=True, name="p", modelfile="FROM ~/weights.gguf\n")
    assert {weights_digest(store.find(name)) for name in "mnop"} == {tiny}
    assert not [path.name for path in store.root.rglob(".tmp-*")]


def test_todays_form_names_them_by_absolute_paths(store: Store, folder: Path, tiny: str) -> None:
    weights = folder / "weights.gguf"
    created(store, reads_files=True, model="m", files={"weights.gguf": str(weights)})
    assert weights_digest(store.find("m")) == tiny
    for field in ("files", "adapters", "draft_files"):
        with pytest.raises(Forbidden):
            create_model(store, CreateRequest(model="n", **{field: {"weights.gguf": str(weights)}}))
    with pytest.raises(BadRequest, match="no such file"):
        created(store, reads_files=True, model="n", files={"x": str(folder)})


@pytest.mark.parametrize("value", ["FOLDER/weights.gguf", "FOLDER", "~/x", "./x", "../x", "/etc"])
@pytest.mark.parametrize("command", ["FROM", "FROM a\nADAPTER", "FROM a\nDRAFT"])
def test_other_clients_may_not_name_files(
    store: Store, folder: Path, command: str, value: str
) -> None:
    text = f"{command} {value.replace('FOLDER', str(folder))}\n"
    with pytest.raises(Forbidden, match="of the server's own user on the same machine"):
        create_model(store, CreateRequest(name="m", modelfile=text))
    with pytest.raises(Forbidden) as refused:
        create_model(store, CreateRequest(name="m", path=str(folder / "Modelfile")))
    assert str(folder) not in str(refused.value)


def test_a_name_without_a_mark_is_no_file_for_others(store: Store) -> None:
    with pytest.raises(BaseMissing, match=r"model 'weights\.gguf' not found"):
        create_model(store, CreateRequest(name="m", modelfile="FROM weights.gguf\n"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"modelfile": "SYSTEM x"}, "no FROM line"),
        ({"modelfile": "FROM a\nFROM b"}, "from one model, not from a and b"),
        ({"modelfile": "FROM a\nNOPE b"}, "(line 2): command must be one of "),
        ({"modelfile": "FROM a\nPARAMETER nope 1"}, "unknown parameter 'nope'"),
        ({"modelfile": "FROM a\nREQUIRES x"}, "requires must be a valid semver"),
        ({"modelfile": "FROM @sha256:../../x"}, "invalid digest format"),
        ({"modelfile": f"FROM @sha256:{'0' * 64}"}, "has not been uploaded"),
        ({"modelfile": "FROM BLOBS/../x"}, "no such file"),
        ({"modelfile": "FROM BLOBS/.tmp-x"}, "invalid digest format"),
        ({"modelfile": "FROM ./x"}, "a path on the server must be absolute"),
        ({"modelfile": "FROM a\nADAPTER b"}, "b: no such file"),
        ({"modelfile": "FROM /nowhere/x.gguf"}, "/nowhere/x.gguf: no such file"),
        ({"modelfile": "FROM FOLDER/empty"}, "no Modelfile or safetensors files found"),
        ({"modelfile": "FROM ~nosuchuser/x"}, "~nosuchuser/x: "),
        ({"path": "Modelfile"}, "a path on the server must be absolute"),
        ({"path": "/nowhere/Modelfile"}, "/nowhere/Modelfile: no such file"),
        ({"path": "/" + "x" * 5000}, "no such file"),
        ({"path": "/a\0b"}, "no such file"),
        ({"modelfile": "FROM /" + "x" * 5000}, "no such file"),
        ({"modelfile": "FROM a\n" + "#" * (8 << 20)}, "the modelfile is larger than 8388608 bytes"),
        ({"path": "/dev/zero"}, "/dev/zero: no such file"),
        ({"path": "FOLDER/weights.gguf"}, "command must be one of"),
        ({"path": "FOLDER/large"}, "larger than 8388608 bytes"),
    ],
)
def test_invalid_input_is_reported(
    store: Store, folder: Path, fields: dict[str, str], text: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "large").write_bytes(bytes((8 << 20) + 1))
    places = {"FOLDER": str(folder), "BLOBS": str(store.root / "blobs")}
    for word, place in places.items():
        fields = {key: value.replace(word, place) for key, value in fields.items()}
    with pytest.raises(BadRequest) as caught:
        created(store, reads_files=True, name="m", **fields)
    assert text in caught.value.message
