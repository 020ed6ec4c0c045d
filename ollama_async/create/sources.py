"""Finds the files of a ``create`` request, in its current form and in that of old clients.

The current form names uploads by their digests. Old clients send the text of a Modelfile, or its
path on the server. Its ``FROM``, ``ADAPTER`` and ``DRAFT`` name a model, an upload
(``@sha256:…``), a blob of this store (as ``show`` prints it), or a file or folder on the server's
disk. In both forms, files on the disk are only for clients that could read them without us: see
``reads_files``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ollama_async.api.modelfile import Modelfile, files_in, parse
from ollama_async.api.ollama import Message
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, Forbidden
from ollama_async.store.blobs import parse_digest
from ollama_async.store.files import read_bounded
from ollama_async.store.layout import StoreLayout

# ruff: noqa: PTH110, PTH112, PTH113 -- these functions raise nothing for invalid names

MODELFILE_LIMIT_BYTES = 8 << 20
"""Real ones have some dozens of KB, including licenses."""

Source = str | Path
"""The digest of an upload, or a file on this machine."""
_PATH_PREFIXES = ("/", "./", "../", "~")
_FORBIDDEN_PATH = (
    "files on the server may only be named by `ollama-async create` of the server's own user on the"
    " same machine; upload the file and use @sha256:DIGEST instead"
)


class CreateSources(msgspec.Struct, frozen=True):
    """A request in the current form, with its files by name. ``files`` None: not in the request."""

    request: CreateRequest
    files: dict[str, Source] | None
    adapters: dict[str, Source]
    drafts: dict[str, Source]


def find_sources(
    layout: StoreLayout, request: CreateRequest, *, reads_files: bool
) -> CreateSources:
    """The files of a request, in either form. Fields of the current form override the Modelfile.

    ``reads_files``: the client may name files outside the store. Blocks.

    :raises BadRequest: the Modelfile, or a file in it, is invalid or cannot be read.
    :raises Forbidden: it names a file on the server and ``reads_files`` is false.
    """
    finder = _FileFinder(layout, reads_files=reads_files)
    is_old = (request.modelfile or request.path) and not request.from_ and request.files is None
    if not is_old:
        return CreateSources(
            request,
            None if request.files is None else finder.named(request.files),
            finder.named(request.adapters or {}),
            finder.named(request.draft_files or {}),
        )
    if len(request.modelfile) > MODELFILE_LIMIT_BYTES:
        raise BadRequest(f"the modelfile is larger than {MODELFILE_LIMIT_BYTES} bytes")
    try:
        modelfile = parse(request.modelfile or finder.modelfile(request.path))
        request = _with_texts(request, modelfile)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    models, files = finder.sort(modelfile.values("from"))
    if len(models) > 1:
        raise BadRequest(f"a model can be made from one model, not from {' and '.join(models)}")
    return CreateSources(
        msgspec.structs.replace(request, from_="".join(models)),
        files or (None if models else {}),
        finder.named(request.adapters or {}) or finder.files(modelfile.values("adapter")),
        finder.named(request.draft_files or {}) or finder.files(modelfile.values("draft")),
    )


def _with_texts(request: CreateRequest, modelfile: Modelfile) -> CreateRequest:
    """:raises ValueError: a parameter or a version is invalid."""
    parameters, _ = modelfile.parameters()
    texts = ("template", "system", "renderer", "parser")
    return msgspec.structs.replace(
        request,
        **{name: getattr(request, name) or modelfile.last(name) for name in texts},
        requires=request.requires or modelfile.requires,
        license=request.license or modelfile.values("license"),
        parameters=parameters | (request.parameters or {}),
        messages=request.messages
        or [Message(role=role, content=text) for role, text in modelfile.messages],
    )


class _FileFinder:
    """Finds the files of one request. Paths are relative to the Modelfile's folder."""

    def __init__(self, layout: StoreLayout, *, reads_files: bool) -> None:
        self._layout = layout
        self._reads_files = reads_files
        self._folder: Path | None = None

    def named(self, files: Mapping[str, str]) -> dict[str, Source]:
        """The current form: digests, or absolute paths of files.

        :raises BadRequest: a file does not exist.
        """
        return {
            name: self._file(value) if value.startswith("/") else value
            for name, value in files.items()
        }

    def modelfile(self, text: str) -> bytes:
        """The content of the Modelfile at the path ``text``."""
        path = self._path(text)
        if not os.path.isfile(path):
            raise BadRequest(f"{text}: no such file")
        self._folder = path.parent
        try:
            return read_bounded(path, MODELFILE_LIMIT_BYTES)
        except OSError as error:
            raise BadRequest(f"{text}: {error.strerror}") from None

    def sort(self, values: list[str]) -> tuple[list[str], dict[str, Source]]:
        """Names of models, and files by name."""
        models: list[str] = []
        files: dict[str, Source] = {}
        for value in values:
            found = self._found(value)
            if not found:
                models.append(value)
            for name, source in found.items():
                free = name if name not in files else f"{len(files)}-{name}"
                files[free] = source
        return models, files

    def files(self, values: list[str]) -> dict[str, Source]:
        """:raises BadRequest: a value is neither an upload nor a file."""
        models, files = self.sort(values)
        if models:
            raise BadRequest(f"{models[0]}: no such file")
        return files

    def _found(self, value: str) -> dict[str, Source]:
        """The files that ``value`` names; none if it names a model."""
        if value.startswith("@"):
            digest = parse_digest(value[1:])
            return {digest.replace(":", "-"): digest}
        blob = self._blob(value)
        if blob:
            return {blob.replace(":", "-"): blob}
        is_path = value.startswith(_PATH_PREFIXES)
        if not is_path and not self._is_in_folder(value):
            return {}
        path = self._path(value)
        try:
            if os.path.isdir(path):
                return dict(files_in(path))
        except ValueError as error:
            raise BadRequest(f"{value}: {error}") from None
        except OSError as error:
            raise BadRequest(f"{value}: {error.strerror}") from None
        return {path.name: self._file(value)}

    def _file(self, value: str) -> Path:
        path = self._path(value)
        if not os.path.isfile(path):
            raise BadRequest(f"{value}: no such file")
        return path

    def _blob(self, value: str) -> str:
        """The digest, if ``value`` is the path of a blob of our store."""
        path = Path(value)
        if path.parent != self._layout.blobs.folder.absolute():
            return ""
        return parse_digest(path.name)

    def _is_in_folder(self, value: str) -> bool:
        """Whether a plain name is a file in the Modelfile's folder."""
        return self._folder is not None and os.path.exists(self._folder / value)

    def _path(self, text: str) -> Path:
        """:raises Forbidden: see :func:`find_sources`. :raises BadRequest: the path is invalid."""
        if not self._reads_files:
            raise Forbidden(_FORBIDDEN_PATH)  # does not quote the path: that would confirm it
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise BadRequest(f"{text}: {error}") from None
        if not (path.is_absolute() or self._folder):
            raise BadRequest(f"{text}: a path on the server must be absolute")
        return path if self._folder is None else self._folder / path
