"""Tensors of several files: found by the index or by looking, never outside of what was given."""

import json

import pytest

from ollama_async.convert.safetensors import INDEX, Weights
from ollama_async.core.errors import BadRequest
from tests.unit.convert.folders import ones, write_tensors


@pytest.fixture
def shards(tmp_path):
    return {
        f"model-{number}.safetensors": write_tensors(
            tmp_path / f"blob-{number}", {f"tensor-{number}": ones(2, 3) * number}
        )
        for number in (1, 2)
    }


def indexed(files, folder, weight_map):
    path = folder / "index"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return {**files, INDEX: path}


def test_all_files_are_read_where_there_is_no_index(shards):
    with Weights(shards) as weights:
        assert set(weights.tensors) == {"tensor-1", "tensor-2"}
        assert weights.read("tensor-2", 1).tolist() == [[2, 2, 2]]


def test_an_index_limits_the_tensors_to_its_list(shards, tmp_path):
    files = indexed(shards, tmp_path, {"tensor-2": "model-2.safetensors"})
    with Weights(files) as weights:
        assert set(weights.tensors) == {"tensor-2"}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "model-3.safetensors", "", 7, ["a"]]
)
def test_an_index_that_names_another_file_is_refused(shards, tmp_path, name):
    with pytest.raises(BadRequest, match="names a missing file"):
        Weights(indexed(shards, tmp_path, {"tensor-1": name}))


def test_an_index_that_is_wrong_about_a_tensor_is_refused(shards, tmp_path):
    with pytest.raises(BadRequest, match=r'"tensor-1"|tensor-1.* is not in'):
        Weights(indexed(shards, tmp_path, {"tensor-1": "model-2.safetensors"}))


@pytest.mark.parametrize("content", ["[]", "no", '{"weight_map": []}', "[" * 100_000])
def test_an_invalid_index_is_rejected(shards, tmp_path, content):
    (tmp_path / "index").write_text(content)
    with pytest.raises(BadRequest, match=INDEX):
        Weights({**shards, INDEX: tmp_path / "index"})


def test_a_tensor_in_two_files_is_refused(shards):
    shards["model-3.safetensors"] = shards["model-1.safetensors"]
    with pytest.raises(BadRequest, match="in two files"):
        Weights(shards)


def test_the_same_weights_in_another_layout_are_passed_over(shards, tmp_path):
    other = write_tensors(tmp_path / "other", {"tensor-1": ones(9)})
    with Weights({**shards, "consolidated.safetensors": other}) as weights:
        assert weights.tensors["tensor-1"].shape == (2, 3)
    with Weights({"consolidated.safetensors": other}) as weights:
        assert weights.tensors["tensor-1"].shape == (9,)


def test_weights_in_folders_below_are_other_models(shards, tmp_path):
    other = write_tensors(tmp_path / "other", {"dense": ones(9)})
    with Weights({**shards, "2_Dense/model.safetensors": other}) as weights:
        assert "dense" not in weights.tensors


def test_too_many_files_are_refused(shards):
    path = shards["model-1.safetensors"]
    with pytest.raises(BadRequest, match="at most 256"):
        Weights({f"model-{number}.safetensors": path for number in range(257)})
