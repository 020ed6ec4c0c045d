"""``create``: a new name for old layers, or for files that were uploaded, with edits on top.

What can be refused is refused before the first status. Blobs are written first and the manifest
last, by rename, under the store's lock: whenever the process dies, the store is consistent. Long
work (copying, joining, quantizing) comes before the lock and is a generator that does as much of it
as its statuses are drawn. An uploaded file is checked, never rewritten unless that is asked for, so
its digest stays what the client computed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api.modelfile import checked_version
from ollama_async.api.ollama import CreateRequest
from ollama_async.api.options import check_parameters
from ollama_async.core.errors import BadRequest, NotFound
from ollama_async.core.model_names import ModelName
from ollama_async.create import adapters, conversion, layers, quantize
from ollama_async.create.levels import parse_level
from ollama_async.create.local_files import copied
from ollama_async.create.publish import publish
from ollama_async.create.sources import Asked, Source, asked
from ollama_async.create.speech import check_speech, complete_speech
from ollama_async.gguf.reader import MAGIC
from ollama_async.store.blobs import parse_digest
from ollama_async.store.files import storage_errors
from ollama_async.store.layout import Shelf
from ollama_async.store.manifests import local_name

Status = dict[str, Any]
Digests = dict[str, str]
"""By file name."""


class BaseMissing(NotFound):
    """The model to start from does not exist; ``name``: as it was asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found")
        self.name = name


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request. ``base``: path of the manifest to start from, or "". ``level``: what to
    quantize the model to, ``draft_level``: the draft model; "" leaves it.
    """

    name: ModelName
    request: CreateRequest
    base: str
    files: dict[str, Source]
    adapters: dict[str, Source]
    drafts: dict[str, Source]
    level: str
    draft_level: str
    keeps_unused: bool


def create(
    shelf: Shelf, request: CreateRequest, *, keeps_unused: bool, reads_files: bool = False
) -> Iterator[Status]:
    """Check the request, then return the statuses of the work, which is done as they are drawn.

    Both this call and the iterator block on the disk, each step for a fraction of a second; closing
    the iterator ends the work. ``keeps_unused``: leave the layers of a model that is replaced.
    ``reads_files``: whoever asks may name files on this machine.

    :raises BadRequest: the request makes no sense, or (from the iterator) a file is not sound.
    :raises BaseMissing: the model to start from does not exist.
    :raises Forbidden: a name asks for a cloud model, or for a file that clients may not name.
    :raises Busy: (from the iterator) too many models are being quantized.
    :raises EngineFailed: (from the iterator) the library could not quantize.
    :raises StorageFailed: (from the iterator) disk full or not writable; the name is unchanged.
    """
    name = _name(request)
    if request.remote_host:
        raise BadRequest("this server does not support 'remote_host' in create")
    level = parse_level(request.quantize or request.quantization)
    draft_level = parse_level(request.draft_quantize)
    found = asked(shelf, request, reads_files=reads_files)
    if draft_level and not found.drafts:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    check_speech(found.request)
    checked = _checked_values(found.request)
    adapter_files = _checked_adapters(shelf, found.adapters)
    draft_files = _checked(shelf, found.drafts)
    base, files = _origin(shelf, found)  # the last: a base is only pulled for what can be made
    work = _Work(
        name=name,
        request=checked,
        base=base,
        files=files,
        adapters=adapter_files,
        drafts=draft_files,
        level=level,
        draft_level=draft_level,
        keeps_unused=keeps_unused,
    )
    return _run(shelf, work)


# ----------------------------------------------------------------- before the first status


def _name(request: CreateRequest) -> ModelName:
    text = request.model or request.name
    if not text.strip():
        raise BadRequest("invalid model name")
    return local_name(text)


def _checked_values(request: CreateRequest) -> CreateRequest:
    """With parameters typed where we know the option, untouched where we do not.

    :raises BadRequest: a parameter, or the version that is required, makes no sense.
    """
    given = {key: value for key, value in (request.parameters or {}).items() if value is not None}
    try:
        checked_version(request.requires)
        parameters = given | check_parameters(given)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return msgspec.structs.replace(request, parameters=parameters)


def _origin(shelf: Shelf, found: Asked) -> tuple[str, dict[str, Source]]:
    """The manifest and the files to start from."""
    base = ""
    if found.request.from_:
        path = shelf.manifests.locate(local_name(found.request.from_))
        if path is None:
            raise BaseMissing(found.request.from_)
        base = path
    elif found.files is None:
        raise BadRequest("neither 'from' or 'files' was specified")
    elif not found.files:
        raise BadRequest("unknown type")
    return base, _checked(shelf, found.files or {})


def _checked_adapters(shelf: Shelf, files: Mapping[str, Source]) -> dict[str, Source]:
    """One GGUF file, or those of an adapter to convert."""
    if adapters.is_published(files):
        return _present(shelf, files)
    if len(files) > 1:
        raise BadRequest("only one adapter is currently supported")
    return _checked(shelf, files)


def _checked(shelf: Shelf, files: Mapping[str, Source]) -> dict[str, Source]:
    """Every file is there and looks like a GGUF, or like a part of a model to convert."""
    sources = _present(shelf, files)
    for name, source in sources.items():
        if not (conversion.is_part(name, files) or _is_gguf(shelf, name, source)):
            raise BadRequest("unknown type")
    return sources


def _present(shelf: Shelf, files: Mapping[str, Source]) -> dict[str, Source]:
    """Every file is there; digests are clean."""
    for name in files:
        if posixpath.normpath(name) != name or name.split("/")[0] in {"", ".", ".."}:
            raise BadRequest("file path must be relative")
    sources = {
        name: parse_digest(source) if isinstance(source, str) else source
        for name, source in files.items()
    }
    for name, source in sources.items():
        if isinstance(source, str) and not shelf.blobs.touch(source):
            raise BadRequest(f'file "{name}" has not been uploaded: {source} is not in the store')
    return sources


def _is_gguf(shelf: Shelf, name: str, source: Source) -> bool:
    """Said by the name, or by the first bytes."""
    if name.endswith(".gguf"):
        return True
    path = source if isinstance(source, Path) else shelf.blobs.path(source)
    with storage_errors(shelf.root), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


# ----------------------------------------------------------------- the work


def _run(shelf: Shelf, work: _Work) -> Iterator[Status]:
    groups = (work.files, work.adapters, work.drafts)
    if any(not conversion.is_part(name, files) for files in groups for name in files):
        yield {"status": "parsing GGUF"}
    with storage_errors(shelf.root):
        files = yield from _gathered(shelf, work.files, work.level)
        layers.check_runnable(shelf, files)
        adapter_layers = layers.adapters(shelf, (yield from _adapters(shelf, work, files)))
        drafts = yield from _gathered(shelf, work.drafts, work.draft_level)
        if work.draft_level:
            drafts = yield from _quantized(shelf, drafts, work.draft_level)
        draft_layers = layers.drafts(shelf, drafts)
        rewritten: Digests = {}
        if work.level:
            weights = _weights(shelf, work.base, files)
            layers.check_runnable(shelf, weights)
            made = yield from _quantized(shelf, weights, work.level)
            rewritten = {weights[name]: digest for name, digest in made.items()}
            files = {name: rewritten.get(digest, digest) for name, digest in files.items()}
        # The base is read under the lock, because its old layers go when somebody replaces it.
        noticed: list[Status] = []
        with shelf.changing(work.name):
            if work.base:
                model = layers.of_model(shelf, work.base, rewritten)
                model = layers.added(shelf, model, files)
            else:
                model = layers.of_files(shelf, files)
                noticed = complete_speech(shelf, model, work.request)
            model.replace("adapter", adapter_layers)
            layers.check_adapters(shelf, model)
            model.replace("draft", draft_layers)
            statuses = publish(
                shelf, work.name, model, work.request, keeps_unused=work.keeps_unused
            )
    yield from (*noticed, *statuses)
    yield {"status": "writing manifest"}
    yield {"status": "success"}


def _gathered(
    shelf: Shelf, files: Mapping[str, Source], level: str = ""
) -> Generator[Status, None, Digests]:
    """All files in the store, those that are published converted, with ``level`` in mind, and those
    that are parts of one model joined.
    """
    digests: Digests = {}
    published = {name: files[name] for name in files if conversion.is_part(name, files)}
    if published:
        paths = _paths(shelf, published)
        digests[conversion.NAME] = yield from conversion.converted(shelf, paths, level)
    for name, source in files.items():
        if name in published:
            continue
        if isinstance(source, Path):
            digests[name] = yield from copied(shelf, name, source)
        else:
            digests[name] = source
    parts = {name: digest for name, digest in digests.items() if shelf.facts.facts(digest).is_split}
    if parts:
        whole = yield from quantize.joined(shelf, list(parts.values()))
        digests = {min(parts): whole} | {
            name: digest for name, digest in digests.items() if name not in parts
        }
    return digests


def _adapters(shelf: Shelf, work: _Work, files: Digests) -> Generator[Status, None, Digests]:
    """As GGUF files; a published one is converted for the model that ``work`` makes."""
    if not adapters.is_published(work.adapters):
        return (yield from _gathered(shelf, work.adapters))
    bases = set(_weights(shelf, work.base, files).values())
    if len(bases) != 1:
        raise BadRequest("an adapter needs exactly one model that it is for")
    paths = _paths(shelf, work.adapters)
    return {adapters.NAME: (yield from adapters.converted(shelf, paths, bases.pop()))}


def _paths(shelf: Shelf, files: Mapping[str, Source]) -> dict[str, Path]:
    return {
        name: source if isinstance(source, Path) else shelf.blobs.path(source)
        for name, source in files.items()
    }


def _weights(shelf: Shelf, base: str, files: Digests) -> Digests:
    """What there is to quantize: models, no projectors and no adapters."""
    weights = {
        name: digest for name, digest in files.items() if shelf.facts.facts(digest).kind == "model"
    }
    manifest = shelf.manifest(base) if base else None
    layers = manifest.layers if manifest is not None else []
    return weights | {layer.digest: layer.digest for layer in layers if layer.kind == "model"}


def _quantized(shelf: Shelf, digests: Digests, level: str) -> Generator[Status, None, Digests]:
    made: Digests = {}
    for name, digest in digests.items():
        made[name] = yield from quantize.quantized(shelf, digest, level)
    return made
