"""``create`` from safetensors: what is uploaded becomes one blob, or nothing does."""

import hashlib
import json

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, NotFound
from ollama_async.create.builder import create_model
from ollama_async.store.files import TEMPORARY_PREFIX
from ollama_async.store.store import Store
from tests.unit.convert.folders import changed, files_of


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


def upload(store, files):
    digests = {}
    for name, path in files.items():
        data = path.read_bytes()
        digests[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with store.open_blob(digests[name]) as writer:
            writer.write(data)
            writer.commit()
    return digests


def create(store, files, **fields):
    request = CreateRequest(model="new", files=upload(store, files), **fields)
    return [status["status"] for status in create_model(store, request)]


def leftovers(store):
    return list((store.root / "blobs").glob(f"{TEMPORARY_PREFIX}*"))


def manifest_of(store):
    path = store.root / "manifests/registry.ollama.ai/library/new/latest"
    return json.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("name", "quantization", "capability"),
    [
        ("llama", "BF16", "completion"),
        ("llama2", "F16", "completion"),
        ("bert", "F16", "embedding"),
    ],
)
def test_a_directory_becomes_a_model(store, name, quantization, capability):
    statuses = create(store, files_of(name))
    assert statuses[0] == "converting model"
    assert statuses[-1] == "success"
    model = store.find("new")
    assert model.details.quantization_level == quantization
    assert capability in model.capabilities
    layers = manifest_of(store)["layers"]
    assert [layer["mediaType"] for layer in layers] == ["application/vnd.ollama.image.model"]
    assert leftovers(store) == []


def test_a_requested_float_type_is_written_at_once(store):
    statuses = create(store, files_of("llama"), quantize="f32")
    assert not [status for status in statuses if status.startswith("quantizing")]
    assert store.find("new").details.quantization_level == "F32"


def test_the_same_files_make_the_same_blob(store):
    create(store, files_of("llama"))
    first = manifest_of(store)["layers"]
    assert any(
        status.startswith("using existing layer") for status in create(store, files_of("llama"))
    )
    assert manifest_of(store)["layers"] == first


def test_files_that_do_not_convert_leave_the_old_model(store, tmp_path):
    create(store, files_of("llama"))
    before = manifest_of(store)
    broken = changed(
        files_of("llama"), "config.json", tmp_path, lambda content: content.update(hidden_size="")
    )
    with pytest.raises(BadRequest, match='"hidden_size" is not a positive number'):
        create(store, broken)
    assert manifest_of(store) == before
    assert leftovers(store) == []


def test_closing_the_stream_leaves_nothing(store):
    request = CreateRequest(model="new", files=upload(store, files_of("llama")))
    steps = iter(create_model(store, request))
    assert next(steps)["status"] == "converting model"
    steps.close()
    assert leftovers(store) == []
    with pytest.raises(NotFound):
        store.find("new")


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "a/../b.json"])
def test_names_with_path_traversal_are_rejected(store, name):
    digests = upload(store, files_of("llama"))
    with pytest.raises(BadRequest, match="file path must be relative"):
        create_model(
            store, CreateRequest(model="new", files={**digests, name: digests["config.json"]})
        )


def test_files_that_were_not_uploaded_are_named(store):
    files = {"model.safetensors": f"sha256:{'0' * 64}"}
    with pytest.raises(BadRequest, match=r'"model\.safetensors" has not been uploaded'):
        create_model(store, CreateRequest(model="new", files=files))
