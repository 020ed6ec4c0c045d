from __future__ import annotations

from pathlib import Path

import pytest

from ollama_async.api.modelfile import files_in, files_of_model

CHECKPOINT = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
]


def test_a_checkpoint_is_its_tensors_and_what_describes_them() -> None:
    others = ["README.md", "consolidated.safetensors", "pytorch_model.bin", "x.gguf", ".git/x.json"]
    assert sorted(files_of_model([*CHECKPOINT, *others])) == sorted(CHECKPOINT)


def test_one_folder_below_counts_and_no_deeper() -> None:
    names = ["model.safetensors", "1_Pooling/config.json", "a/b/config.json", "a/model.safetensors"]
    found = ["a/model.safetensors", "model.safetensors", "1_Pooling/config.json"]
    assert files_of_model(names) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], None),
        (["b.gguf", "a.gguf", "config.json"], ["a.gguf", "b.gguf"]),
        (["consolidated.safetensors", "params.json"], None),
    ],
)
def test_other_kinds_of_models(names: list[str], found: list[str] | None) -> None:
    assert files_of_model(names) == (found or names)


@pytest.mark.parametrize("names", [[], ["pytorch_model.bin"], ["config.json"], [".hidden.gguf"]])
def test_a_folder_without_a_model_is_an_error(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^no Modelfile or safetensors files found$"):
        files_of_model(names)


def test_files_are_found_by_their_names_in_the_folder(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "1_Pooling/config.json", "x/y/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dangling.json").symlink_to("nowhere")
    names = ["model.safetensors", "1_Pooling/config.json", "config.json"]
    assert files_in(tmp_path) == {name: tmp_path / name for name in names}
