"""``create``: a new name for old layers, or for a GGUF that was uploaded, with edits on top.

What can be refused is refused before the first status. Blobs are written first and the manifest
last, by rename, all under the store's lock: whenever the process dies, the store is consistent.
The uploaded file is checked, never rewritten, so its digest stays what the client computed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

import msgspec

from ollama_async.api.counts import human_number
from ollama_async.api.ollama import CreateRequest
from ollama_async.api.options import check_parameters
from ollama_async.errors import BadRequest, NotFound
from ollama_async.models.blobs import parse_digest
from ollama_async.models.facts import Kind, ModelFacts
from ollama_async.models.gguf import MAGIC
from ollama_async.models.manifest import (
    CONFIG_TYPE,
    LICENSES_LIMIT,
    MANIFEST_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    Config,
    Layer,
    Manifest,
    go_json,
    layer_type,
    read_config,
)
from ollama_async.models.manifests import local_name
from ollama_async.models.shelf import Shelf
from ollama_async.models.storage import locked, storage_errors
from ollama_async.names import ModelName

Status = dict[str, Any]
_UNSUPPORTED = ("quantize", "quantization", "draft_quantize", "draft_files", "remote_host")


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request. ``base``: path of the manifest to start from, or "" for ``files``."""

    name: ModelName
    request: CreateRequest
    parameters: dict[str, Any]
    base: str
    files: dict[str, str]
    adapters: dict[str, str]
    keeps_unused: bool


class _Draft(msgspec.Struct):
    """A model on its way into the store; its layers' blobs are there already."""

    layers: list[Layer]
    config: Config


def create(shelf: Shelf, request: CreateRequest, *, keeps_unused: bool) -> Iterator[Status]:
    """Check the request, then return the statuses of the work, which is done as they are drawn.

    Both this call and the iterator block on the disk. ``keeps_unused``: leave the layers of a model
    that is replaced.

    :raises BadRequest: the request makes no sense, or (from the iterator) a file is not sound.
    :raises NotFound: the model to start from does not exist.
    :raises Forbidden: a name asks for a cloud model.
    :raises StorageFailed: (from the iterator) disk full or not writable; the name is unchanged.
    """
    name = _name(request)
    for field in _UNSUPPORTED:
        if getattr(request, field):
            raise BadRequest(f"this server does not support '{field}' in create")
    parameters = _parameters(request)
    base, files = "", {}
    if request.from_:
        base = _base_path(shelf, request.from_)
    elif request.files is not None:
        files = _files(shelf, request.files)
    else:
        raise BadRequest("neither 'from' or 'files' was specified")
    work = _Work(
        name=name,
        request=request,
        parameters=parameters,
        base=base,
        files=files,
        adapters=_adapters(shelf, request),
        keeps_unused=keeps_unused,
    )
    return _run(shelf, work)


# ----------------------------------------------------------------- before the first status


def _name(request: CreateRequest) -> ModelName:
    text = request.model or request.name
    if not text.strip():
        raise BadRequest("invalid model name")
    return local_name(text)


def _parameters(request: CreateRequest) -> dict[str, Any]:
    """Typed where we know the option, untouched where we do not."""
    given = {key: value for key, value in (request.parameters or {}).items() if value is not None}
    try:
        return given | check_parameters(given)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _base_path(shelf: Shelf, text: str) -> str:
    path = shelf.manifests.locate(local_name(text))
    if path is None:
        raise NotFound(f"model '{text}' not found")
    return path


def _files(shelf: Shelf, files: dict[str, str]) -> dict[str, str]:
    """File names to clean digests; every file is there and looks like a GGUF."""
    for name in files:
        if posixpath.normpath(name) != name or name.split("/")[0] in {"", ".", ".."}:
            raise BadRequest("file path must be relative")
    digests = {name: parse_digest(digest) for name, digest in files.items()}
    if not files:
        raise BadRequest("unknown type")
    if any(name.endswith(".safetensors") for name in files):
        raise BadRequest("safetensors files are not supported by this server; convert them to GGUF")
    for name, digest in digests.items():
        if not shelf.blobs.has(digest):
            raise BadRequest(f'file "{name}" has not been uploaded: {digest} is not in the store')
        if not name.endswith(".gguf") and not _has_magic(shelf, digest):
            raise BadRequest("unknown type")
    return digests


def _has_magic(shelf: Shelf, digest: str) -> bool:
    with storage_errors(shelf.root), shelf.blobs.path(digest).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _adapters(shelf: Shelf, request: CreateRequest) -> dict[str, str]:
    adapters = _files(shelf, request.adapters) if request.adapters else {}
    if len(adapters) > 1:
        raise BadRequest("only one adapter is currently supported")
    return adapters


# ----------------------------------------------------------------- the work


def _run(shelf: Shelf, work: _Work) -> Iterator[Status]:
    if work.files or work.adapters:
        yield {"status": "parsing GGUF"}
    draft = _Draft([], Config())
    with storage_errors(shelf.root):
        if work.files:
            draft = _draft_from_files(shelf, work.files)
        adapters = [layer for layer, _ in _gguf_layers(shelf, work.adapters, "adapter")]
        # The base is read under the lock, because its old layers go when somebody replaces it.
        # Statuses are collected, not yielded, there: a slow client must not hold the lock.
        with locked(shelf.root):
            if work.base:
                draft = _draft_from_model(shelf, work.base)
            if adapters:
                draft.layers = [layer for layer in draft.layers if layer.kind != "adapter"]
                draft.layers += adapters
            statuses = _publish(shelf, work, draft)
    yield from statuses
    yield {"status": "writing manifest"}
    yield {"status": "success"}


def _draft_from_model(shelf: Shelf, path: str) -> _Draft:
    manifest = shelf.manifest(path)
    short = shelf.manifests.name_of(path).short
    if manifest is None:
        raise BadRequest(f"model '{short}' cannot be read")
    config = Config()
    if manifest.config.digest:
        config = read_config(shelf.blobs.read(manifest.config.digest, TEXT_LIMIT_BYTES))
    for layer in manifest.layers:
        layer.from_ = short
        if layer.kind == "model":
            shelf.facts.facts(layer.digest)
    return _Draft(manifest.layers, config)


def _draft_from_files(shelf: Shelf, files: dict[str, str]) -> _Draft:
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
    return _Draft([layer for layer, _ in pairs], config)


def _gguf_layers(
    shelf: Shelf, files: dict[str, str], wanted: Kind | None = None
) -> list[tuple[Layer, ModelFacts]]:
    """A layer for each file, by what its header says it is; models come first."""
    pairs: list[tuple[Layer, ModelFacts]] = []
    for name, digest in files.items():
        facts = shelf.facts.facts(digest)
        if wanted is not None and facts.kind != wanted:
            raise BadRequest(f'file "{name}" is no {wanted}')
        if facts.is_split:
            raise BadRequest(f'file "{name}" is one part of several; merge them first')
        layer = Layer(layer_type(facts.kind), digest, shelf.blobs.size(digest), from_=name)
        pairs.append((layer, facts))
    return sorted(pairs, key=lambda pair: pair[0].kind != "model")


def _publish(shelf: Shelf, work: _Work, draft: _Draft) -> list[Status]:
    """Write the small layers, the config and the manifest. The caller holds the lock."""
    for layer in draft.layers:
        if not shelf.blobs.has(layer.digest):
            raise BadRequest(f"{layer.digest} is not in the store any more; upload it again")
    edits = list(_edits(shelf, work.request, work.parameters, draft))
    config = go_json(_config(work.request, draft.config))
    _check_sizes(draft, [*((kind, content) for kind, content, _ in edits), ("config", config)])

    statuses = [{"status": f"using existing layer {layer.digest}"} for layer in draft.layers]
    layers = list(draft.layers)
    for kind, content, replaced in edits:
        new = _store(shelf, layer_type(kind), content, statuses)
        same = (new.media_type, new.digest)
        layers = [
            layer
            for layer in layers
            if layer.kind not in replaced and (layer.media_type, layer.digest) != same
        ]
        layers.append(new)
    manifest = Manifest(config=_store(shelf, CONFIG_TYPE, config, statuses), layers=layers)
    data = go_json(manifest)
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise BadRequest(f"the manifest is larger than {MANIFEST_LIMIT_BYTES} bytes")

    name = shelf.manifests.spelled(work.name)
    old_path = shelf.manifests.locate(name)
    old = shelf.manifest(old_path) if old_path else None
    shelf.manifests.write(name, data)
    if old is not None and not work.keeps_unused:
        shelf.drop(old.digests - manifest.digests)
    return statuses


def _check_sizes(draft: _Draft, texts: list[tuple[str, bytes]]) -> None:
    """What is written must be something that is read again. :raises BadRequest: it is too much."""
    for kind, content in texts:
        if len(content) > TEXT_LIMIT_BYTES:
            raise BadRequest(f"the {kind} is larger than {TEXT_LIMIT_BYTES} bytes")
    kinds = [*(layer.kind for layer in draft.layers), *(kind for kind, _ in texts)]
    if kinds.count("license") > LICENSES_LIMIT:
        raise BadRequest(f"a model may have at most {LICENSES_LIMIT} licenses")


def _edits(
    shelf: Shelf, request: CreateRequest, parameters: dict[str, Any], draft: _Draft
) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """Kind and content of each layer that the request asks for, and the kinds that it replaces."""
    if request.template:
        yield "template", request.template.encode(), ("template", "prompt")
    if request.system:
        yield "system", request.system.encode(), ("system",)
    for text in _licenses(request.license):
        yield "license", text.encode(), ()
    if parameters:
        merged = _base_parameters(shelf, draft) | parameters
        ordered = {key: _go_number(merged[key]) for key in sorted(merged)}
        yield "params", go_json(ordered), ("params",)
    if request.messages:
        turns = [
            {"role": turn.role, "content": turn.content} | msgspec.to_builtins(turn)
            for turn in request.messages
        ]
        yield "messages", go_json(turns), ("messages",)


def _licenses(license_: object) -> list[str]:
    texts = license_ if isinstance(license_, list) else [license_]
    return [text for text in texts if isinstance(text, str) and text]


def _base_parameters(shelf: Shelf, draft: _Draft) -> dict[str, Any]:
    for layer in draft.layers:
        if layer.kind == "params":
            try:
                data = shelf.blobs.read(layer.digest, TEXT_LIMIT_BYTES)
                return msgspec.json.decode(data, type=dict[str, Any])
            except (ValueError, RecursionError):
                raise BadRequest(f"the parameters in {layer.digest} are not valid JSON") from None
    return {}


def _go_number(value: Any) -> Any:
    """Go writes 1.0 as 1; the same bytes give the same digest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _config(request: CreateRequest, base: Config) -> Config:
    return msgspec.structs.replace(
        base,
        renderer=request.renderer or base.renderer,
        parser=request.parser or base.parser,
        requires=request.requires or base.requires,
        architecture="amd64",
        os="linux",
    )


def _store(shelf: Shelf, media_type: str, content: bytes, statuses: list[Status]) -> Layer:
    digest, is_new = shelf.blobs.put(content)
    word = "creating new" if is_new else "using existing"
    statuses.append({"status": f"{word} layer {digest}"})
    return Layer(media_type, digest, len(content))
