"""The large layers of a model that is being made: which blobs they are, and as what."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ollama_async.api.counts import human_number
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.summary import ModelFacts
from ollama_async.store.layout import Shelf
from ollama_async.store.manifest import TEXT_LIMIT_BYTES, Config, Layer, layer_type, read_config


class Assembly(msgspec.Struct):
    """A model on its way into the store; its layers' blobs are there already."""

    layers: list[Layer]
    config: Config

    def replace(self, kind: str, layers: list[Layer]) -> None:
        """Layers instead of all those of the kind; nothing happens if there are none."""
        if layers:
            self.layers = [layer for layer in self.layers if layer.kind != kind] + layers


def of_model(shelf: Shelf, path: str, rewritten: Mapping[str, str]) -> Assembly:
    """What the model of a manifest is made of, with other blobs in place of some.

    ``rewritten``: from a digest that the manifest had, to that of what was made of it. The caller
    holds the store's lock, because the layers go when somebody replaces the model.

    :raises BadRequest: it cannot be read or run, or has other weights than those that were
        rewritten.
    """
    manifest = shelf.manifest(path)
    short = shelf.manifests.name_of(path).short
    if manifest is None:
        raise BadRequest(f"model '{short}' cannot be read")
    if not rewritten.keys() <= manifest.digests:
        raise BadRequest(f"model '{short}' was replaced meanwhile; try again")
    config = Config()
    if manifest.config.digest:
        config = read_config(shelf.blobs.read(manifest.config.digest, TEXT_LIMIT_BYTES))
    for layer in manifest.layers:
        layer.from_ = short
        if layer.digest in rewritten:
            layer.digest = rewritten[layer.digest]
            layer.size = shelf.blobs.size(layer.digest)
            if layer.kind == "model":
                config.file_type = shelf.facts.facts(layer.digest).quantization
        elif layer.kind == "model":
            _check_runnable(f"model '{short}'", shelf.facts.facts(layer.digest))
    return Assembly(manifest.layers, config)


def of_files(shelf: Shelf, files: Mapping[str, str]) -> Assembly:
    """A model of GGUF files, by name; the names only say where they came from.

    :raises BadRequest: one is not sound, or not exactly one is a model.
    """
    pairs = _gguf_layers(shelf, files)
    models = [facts for layer, facts in pairs if layer.kind == "model"]
    if len(models) != 1:
        raise BadRequest(f"{len(models)} of the files are models, exactly one must be")
    families = dict.fromkeys(facts.architecture for _, facts in pairs)
    config = Config(
        model_format="gguf",
        model_family=models[0].architecture,
        model_families=list(families),
        model_type=human_number(models[0].parameter_count),
        file_type=models[0].quantization,
    )
    return Assembly([layer for layer, _ in pairs], config)


def check_runnable(shelf: Shelf, files: Mapping[str, str]) -> None:
    """:raises BadRequest: one is not sound, or a model that lacks what it needs to run."""
    for name, digest in files.items():
        _check_runnable(f'file "{name}"', shelf.facts.facts(digest))


def _check_runnable(what: str, facts: ModelFacts) -> None:
    if facts.lack:
        raise BadRequest(f"{what} has {facts.lack}")


def added(shelf: Shelf, assembly: Assembly, files: Mapping[str, str]) -> Assembly:
    """The model with projectors and adapters besides. :raises BadRequest: one is a model."""
    pairs = _gguf_layers(shelf, files)
    if any(layer.kind == "model" for layer, _ in pairs):
        raise BadRequest("a model can be made from a model or from a file, not from both")
    for kind in ("adapter", "projector"):
        assembly.replace(kind, [layer for layer, _ in pairs if layer.kind == kind])
    return assembly


def adapters(shelf: Shelf, files: Mapping[str, str]) -> list[Layer]:
    """:raises BadRequest: a file is no adapter."""
    return _layers_of(shelf, files, "adapter", "adapter")


def check_adapters(shelf: Shelf, assembly: Assembly) -> None:
    """:raises BadRequest: an adapter cannot be applied to the model."""
    models = [layer for layer in assembly.layers if layer.kind == "model"]
    for layer in assembly.layers:
        if layer.kind == "adapter" and models:
            shelf.facts.check_adapter(layer.digest, models[0].digest)


def drafts(shelf: Shelf, files: Mapping[str, str]) -> list[Layer]:
    """Small models that guess for a large one. :raises BadRequest: a file is no model."""
    layers = _layers_of(shelf, files, "model", "draft model")
    for layer in layers:
        layer.media_type = layer_type("draft")
    return layers


def _layers_of(shelf: Shelf, files: Mapping[str, str], kind: str, words: str) -> list[Layer]:
    layers = [layer for layer, _ in _gguf_layers(shelf, files)]
    for layer in layers:
        if layer.kind != kind:
            raise BadRequest(f'file "{layer.from_}" is no {words}')
    return layers


def _gguf_layers(shelf: Shelf, files: Mapping[str, str]) -> list[tuple[Layer, ModelFacts]]:
    """A layer for each file, by what its header says it is; models come first."""
    pairs: list[tuple[Layer, ModelFacts]] = []
    for name, digest in files.items():
        facts = shelf.facts.facts(digest)
        layer = Layer(layer_type(facts.kind), digest, shelf.blobs.size(digest), from_=name)
        pairs.append((layer, facts))
    return sorted(pairs, key=lambda pair: pair[0].kind != "model")
