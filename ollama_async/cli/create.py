"""``create``: what a Modelfile asks for.

The server never sees the Modelfile: it is read here, paths in it are resolved here, and what goes
over the wire are plain values, and files: by their paths if the server is our own user's on this
machine, else they are sent first and named by their digests.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from ollama_async.api.model_folder import files_in
from ollama_async.api.modelfile import Modelfile, parse
from ollama_async.cli.client import CHUNK_BYTES, Client, CommandFailed, ServerRefused
from ollama_async.cli.progress import Progress
from ollama_async.core.model_names import ModelName

_TEXTS = ("template", "system", "renderer", "parser")

_Files = dict[str, Path]
"""By the name that the server is to know them by."""


def create(client: Client, arguments: argparse.Namespace) -> int:
    (name,) = arguments.words
    try:
        ModelName.parse(name)
    except ValueError:
        raise CommandFailed(f"invalid model name: {name}") from None
    source, folder = _read(arguments.file)
    try:
        modelfile = parse(source)
        values = _values(modelfile)
    except ValueError as reason:
        raise CommandFailed(str(reason)) from None
    client.check_alive()
    progress = Progress()
    try:
        progress.step("gathering model components")
        base, files = _sources(modelfile, folder)
        request = {"model": name, **values, **base, **_levels(arguments)}
        _create_from(client, request, files, progress)
    finally:
        progress.end()
    return 0


def _read(file: str) -> tuple[bytes, Path]:
    """A Modelfile's bytes, and the folder that its paths are relative to."""
    if file == "-":
        return sys.stdin.buffer.read(), Path.cwd()
    try:
        return Path(file).read_bytes(), Path(file).absolute().parent
    except FileNotFoundError:
        raise CommandFailed("specified Modelfile wasn't found") from None
    except OSError as reason:
        raise CommandFailed(f"{file}: {reason.strerror}") from None


def _values(modelfile: Modelfile) -> dict[str, Any]:
    """All of the request that is not files. :raises ValueError: with Ollama's text."""
    parameters, warnings = modelfile.parameters()
    for warning in warnings:
        print(warning, file=sys.stderr)
    values: dict[str, Any] = {field: modelfile.last(field) for field in _TEXTS}
    values |= {
        "license": modelfile.values("license"),
        "parameters": parameters,
        "messages": [{"role": role, "content": text} for role, text in modelfile.messages],
        "requires": modelfile.requires,
    }
    return {field: value for field, value in values.items() if value}


def _levels(arguments: argparse.Namespace) -> dict[str, str]:
    """What to quantize to; the server knows which levels there are."""
    levels = {"quantize": arguments.quantize, "draft_quantize": arguments.draft_quantize}
    return {field: level for field, level in levels.items() if level}


def _create_from(
    client: Client, request: dict[str, Any], files: Mapping[str, _Files], progress: Progress
) -> None:
    """``files`` by the field that is to name them."""
    paths = _paths(files)
    if paths and client.may_name_files:
        try:
            create_model(client, request | paths, progress, names_files=True)
        except ServerRefused as refusal:
            if refusal.status != HTTPStatus.FORBIDDEN:  # or there is a relay between us
                raise
        else:
            return
    digests = {
        field: {name: upload(client, path, progress) for name, path in chosen.items()}
        for field, chosen in files.items()
    }
    create_model(client, request | digests, progress)


def _paths(files: Mapping[str, _Files]) -> dict[str, dict[str, str]]:
    """``files`` as the server could find them; nothing if a path cannot be told in JSON."""
    paths = {
        field: {name: str(path) for name, path in chosen.items()} for field, chosen in files.items()
    }
    try:
        json.dumps(paths, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return {}
    return paths


def _sources(modelfile: Modelfile, folder: Path) -> tuple[dict[str, str], dict[str, _Files]]:
    """The field ``from``, if a model is named, and the files of the fields ``files``, ``adapters``
    and ``draft_files``.
    """
    base: dict[str, str] = {}
    weights: list[_Files] = []
    for value in modelfile.values("from"):
        found = _files_at(value, folder)
        if found:
            weights.append(found)
        else:
            base["from"] = value
    chosen = {
        "files": weights,
        "adapters": _required(modelfile.values("adapter"), folder),
        "draft_files": _required(modelfile.values("draft"), folder),
    }
    return base, {field: _distinct(files) for field, files in chosen.items() if files}


def _files_at(value: str, folder: Path) -> _Files:
    """The files that ``value`` means; none if it is the name of a model.

    :raises CommandFailed: it can only be a path, and nothing is there.
    """
    try:
        path = folder / Path(value).expanduser()
        if path.is_file():
            return {path.name: path}
        if path.is_dir():
            return files_in(path)
    except (OSError, RuntimeError, ValueError) as reason:  # no home, a NUL, a name too long
        raise CommandFailed(f"{value}: {reason}") from None
    if value.startswith(("/", "./", "../", "~")):
        raise CommandFailed(f"{value}: no such file")
    return {}


def _required(values: list[str], folder: Path) -> list[_Files]:
    required: list[_Files] = []
    for value in values:
        found = _files_at(value, folder)
        if not found:
            raise CommandFailed(f"{value}: no such file")
        required.append(found)
    return required


def _distinct(chosen: list[_Files]) -> _Files:
    """All of them together; a name that comes twice gets a number in front."""
    together: _Files = {}
    for files in chosen:
        for name, path in files.items():
            free = name if name not in together else f"{len(together)}-{name}"
            together[free] = path
    return together


def upload(client: Client, path: Path, progress: Progress) -> str:
    """Make sure that the server has the file's bytes; their digest, ``sha256:<64 hex>``.

    What the server has already is not sent again.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            digest = _digest(file, size_bytes, path.name, progress)
            if not client.has_blob(digest):
                text = f"copying file {digest}"
                file.seek(0)
                client.send_blob(
                    digest, file, size_bytes, lambda sent: progress.share(text, sent, size_bytes)
                )
    except OSError as reason:
        raise CommandFailed(f"{path}: {reason.strerror or reason}") from reason
    return digest


def _digest(file: BinaryIO, size_bytes: int, name: str, progress: Progress) -> str:
    sum_ = hashlib.sha256()
    done = 0
    text = f"hashing {name}"
    while chunk := file.read(CHUNK_BYTES):
        sum_.update(chunk)
        done += len(chunk)
        progress.share(text, done, max(size_bytes, done))
    return f"sha256:{sum_.hexdigest()}"


def create_model(
    client: Client, request: dict[str, Any], progress: Progress, *, names_files: bool = False
) -> None:
    """POST /api/create, showing what the server says on the way.

    :raises CommandFailed: the answer ended without ``success``.
    """
    lines = client.lines("/api/create", request, names_files=names_files)
    with contextlib.closing(lines) as updates:
        progress.follow(updates, "the server ended before the model was complete")


def model_of_file(client: Client, path: Path, progress: Progress) -> str:
    """The name of a model made of one GGUF file; the same bytes have the same name."""
    try:
        digest = upload(client, path, progress)
        name = f"file-{digest.removeprefix('sha256:')[:12]}"
        create_model(client, {"model": name, "files": {path.name: digest}}, progress)
    finally:
        progress.end()
    return name
