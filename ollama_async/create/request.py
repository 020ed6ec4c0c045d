"""Checks a ``create`` request before the first status."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ollama_async.api.modelfile import checked_version
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.api.options import check_parameters
from ollama_async.convert import lora
from ollama_async.core.errors import BadRequest, NotFound, TemplateFailed
from ollama_async.core.model_names import ModelName
from ollama_async.create.quantize import parse_level
from ollama_async.create.sources import CreateSources, Source, find_sources
from ollama_async.gguf.reader import MAGIC
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.go_renderer import parse_template
from ollama_async.store.blobs import parse_digest
from ollama_async.store.files import storage_errors
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import local_name

_QUOTED_CHARACTERS = 100
"""Of a name in an error."""


class BaseMissing(NotFound):
    """The base model ``name``, as requested, does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found")
        self.name = name


class CheckedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``base``: path of the base model's manifest, or "". ``level``, ``draft_level``: quantization
    of the model and the draft model, or "". The parameters of ``request`` are typed.
    """

    name: ModelName
    request: CreateRequest
    base: str
    files: dict[str, Source]
    adapters: dict[str, Source]
    drafts: dict[str, Source]
    level: str
    draft_level: str


def check_request(
    layout: StoreLayout, request: CreateRequest, *, reads_files: bool
) -> CheckedRequest:
    """``reads_files``: the client may name files on this machine. Blocks.

    :raises BadRequest: the request is invalid.
    :raises BaseMissing: the base model does not exist.
    :raises Forbidden: it names a cloud model, or a file that the client may not name.
    """
    name = _name(request)
    if request.remote_host:
        raise BadRequest("this server does not support 'remote_host' in create")
    level = parse_level(request.quantize or request.quantization)
    draft_level = parse_level(request.draft_quantize)
    sources = find_sources(layout, request, reads_files=reads_files)
    if draft_level and not sources.drafts:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    _check_chat_format(sources.request)
    checked = _with_typed_parameters(sources.request)
    adapters = _check_adapters(layout, sources.adapters)
    drafts = _check_files(layout, sources.drafts)
    base, files = _base_and_files(layout, sources)  # last: pulls a base only for a valid request
    return CheckedRequest(
        name=name,
        request=checked,
        base=base,
        files=files,
        adapters=adapters,
        drafts=drafts,
        level=level,
        draft_level=draft_level,
    )


def is_safetensors_part(name: str, names: Iterable[str]) -> bool:
    """Whether ``name`` belongs to a model of safetensors, and is not a GGUF file."""
    has_safetensors = any(each.endswith(".safetensors") for each in names)
    return has_safetensors and not name.endswith(".gguf")


def is_peft_adapter(names: Iterable[str]) -> bool:
    """Whether the files are an adapter as PEFT saves it, to be converted.

    :raises BadRequest: one of the two required files is missing.
    """
    names = {posixpath.basename(name) for name in names}
    required = {lora.CONFIG_NAME, lora.WEIGHTS_NAME}
    if required <= names:
        return True
    if lora.CONFIG_NAME in names or any(name.endswith(".safetensors") for name in names):
        missing = " and ".join(sorted(required - names))
        raise BadRequest(f"an adapter that is not a GGUF file needs {missing}")
    return False


def _name(request: CreateRequest) -> ModelName:
    text = request.model or request.name
    if not text.strip():
        raise BadRequest("invalid model name")
    return local_name(text)


def _check_chat_format(request: CreateRequest) -> None:
    """:raises BadRequest: an invalid Go template, or an unknown renderer or parser."""
    if request.template:
        try:
            parse_template(request.template)
        except TemplateFailed as error:
            raise BadRequest(f"template error: {error.message}") from None
    if request.renderer and renderers.named(request.renderer) is None:
        raise BadRequest(f'unknown renderer "{request.renderer[:_QUOTED_CHARACTERS]}"')
    if request.parser and parsers.named(request.parser) is None:
        raise BadRequest(f'unknown parser "{request.parser[:_QUOTED_CHARACTERS]}"')


def _with_typed_parameters(request: CreateRequest) -> CreateRequest:
    """Parameters of known options are typed, others unchanged.

    :raises BadRequest: a parameter or the required version is invalid.
    """
    given = {key: value for key, value in (request.parameters or {}).items() if value is not None}
    try:
        checked_version(request.requires)
        parameters = given | check_parameters(given)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return msgspec.structs.replace(request, parameters=parameters)


def _base_and_files(layout: StoreLayout, sources: CreateSources) -> tuple[str, dict[str, Source]]:
    base = ""
    if sources.request.from_:
        path = layout.manifests.locate(local_name(sources.request.from_))
        if path is None:
            raise BaseMissing(sources.request.from_)
        base = path
    elif sources.files is None:
        raise BadRequest("neither 'from' or 'files' was specified")
    elif not sources.files:
        raise BadRequest("unknown type")
    return base, _check_files(layout, sources.files or {})


def _check_adapters(layout: StoreLayout, files: Mapping[str, Source]) -> dict[str, Source]:
    """One GGUF file, or the files of a PEFT adapter."""
    if is_peft_adapter(files):
        return _check_present(layout, files)
    if len(files) > 1:
        raise BadRequest("only one adapter is currently supported")
    return _check_files(layout, files)


def _check_files(layout: StoreLayout, files: Mapping[str, Source]) -> dict[str, Source]:
    """Every file exists, and is a GGUF file or belongs to a model of safetensors."""
    sources = _check_present(layout, files)
    for name, source in sources.items():
        if not (is_safetensors_part(name, files) or _is_gguf(layout, name, source)):
            raise BadRequest("unknown type")
    return sources


def _check_present(layout: StoreLayout, files: Mapping[str, Source]) -> dict[str, Source]:
    """Every file exists; digests are normalized."""
    for name in files:
        if posixpath.normpath(name) != name or name.split("/")[0] in {"", ".", ".."}:
            raise BadRequest("file path must be relative")
    sources = {
        name: parse_digest(source) if isinstance(source, str) else source
        for name, source in files.items()
    }
    for name, source in sources.items():
        if isinstance(source, str) and not layout.blobs.touch(source):
            raise BadRequest(f'file "{name}" has not been uploaded: {source} is not in the store')
    return sources


def _is_gguf(layout: StoreLayout, name: str, source: Source) -> bool:
    """By the name or the first bytes."""
    if name.endswith(".gguf"):
        return True
    path = source if isinstance(source, Path) else layout.blobs.path(source)
    with storage_errors(layout.root), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
