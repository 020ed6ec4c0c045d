"""Creates models from a Modelfile (``create``) or from one GGUF file (``run FILE``).

The Modelfile and its paths are parsed here. The server receives values and files: paths if it runs
as the same user on this machine, otherwise uploads, named by their digests.
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

from ollama_async.api.modelfile import Modelfile, files_in, parse
from ollama_async.cli.client import CHUNK_BYTES, Client, CommandFailed, ServerRefused
from ollama_async.cli.progress import Progress, open_progress
from ollama_async.core.model_names import ModelName

_TEXT_FIELDS = ("template", "system", "renderer", "parser")

_Files = dict[str, Path]
"""By the names that the server gives them."""


def create(client: Client, arguments: argparse.Namespace) -> int:
    (name,) = arguments.words
    try:
        ModelName.parse(name)
    except ValueError:
        raise CommandFailed(f"invalid model name: {name}") from None
    source, folder = _read_modelfile(arguments.file)
    try:
        modelfile = parse(source)
        values = _values(modelfile)
    except ValueError as reason:
        raise CommandFailed(str(reason)) from None
    quantize = {"quantize": arguments.quantize, "draft_quantize": arguments.draft_quantize}
    values |= {field: level for field, level in quantize.items() if level}
    client.check_alive()
    with open_progress() as progress:
        progress.step("gathering model components")
        base, files = _sources(modelfile, folder)
        _create_from(client, {"model": name, **values, **base}, files, progress)
    return 0


def create_from_file(client: Client, path: Path) -> str:
    """Create a model from one GGUF file; returns its name, which depends on the bytes only."""
    with open_progress() as progress:
        digest = _upload(client, path, progress)
        name = f"file-{digest.removeprefix('sha256:')[:12]}"
        _request_model(client, {"model": name, "files": {path.name: digest}}, progress)
    return name


def _read_modelfile(file: str) -> tuple[bytes, Path]:
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
    """The fields of the request that are not files. :raises ValueError: with Ollama's text."""
    parameters, warnings = modelfile.parameters()
    for warning in warnings:
        print(warning, file=sys.stderr)
    values: dict[str, Any] = {field: modelfile.last(field) for field in _TEXT_FIELDS}
    values |= {
        "license": modelfile.values("license"),
        "parameters": parameters,
        "messages": [{"role": role, "content": text} for role, text in modelfile.messages],
        "requires": modelfile.requires,
    }
    return {field: value for field, value in values.items() if value}


def _create_from(
    client: Client, request: dict[str, Any], files: Mapping[str, _Files], progress: Progress
) -> None:
    """``files``: by the field of the request that names them."""
    paths = _paths(files)
    if paths and client.may_send_paths:
        try:
            _request_model(client, request | paths, progress, sends_paths=True)
        except ServerRefused as refusal:
            if refusal.status != HTTPStatus.FORBIDDEN:  # perhaps due to a proxy
                raise
        else:
            return
    digests = {
        field: {name: _upload(client, path, progress) for name, path in chosen.items()}
        for field, chosen in files.items()
    }
    _request_model(client, request | digests, progress)


def _request_model(
    client: Client, request: dict[str, Any], progress: Progress, *, sends_paths: bool = False
) -> None:
    """POST /api/create, showing its progress. :raises CommandFailed:"""
    lines = client.stream("/api/create", request, sends_paths=sends_paths)
    with contextlib.closing(lines) as updates:
        progress.follow(updates, "the server ended before the model was complete")


def _paths(files: Mapping[str, _Files]) -> dict[str, dict[str, str]]:
    """``files`` as text; empty if a path is not valid Unicode."""
    paths = {
        field: {name: str(path) for name, path in chosen.items()} for field, chosen in files.items()
    }
    try:
        json.dumps(paths, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return {}
    return paths


def _sources(modelfile: Modelfile, folder: Path) -> tuple[dict[str, str], dict[str, _Files]]:
    """The field ``from`` (if it names a model), and the files of the fields ``files``,
    ``adapters`` and ``draft_files``.
    """
    base: dict[str, str] = {}
    weights: list[_Files] = []
    for value in modelfile.values("from"):
        if found := _find_files(value, folder):
            weights.append(found)
        else:
            base["from"] = value
    chosen = {
        "files": weights,
        "adapters": [
            _find_files(value, folder, is_required=True) for value in modelfile.values("adapter")
        ],
        "draft_files": [
            _find_files(value, folder, is_required=True) for value in modelfile.values("draft")
        ],
    }
    return base, {field: _merge(files) for field, files in chosen.items() if files}


def _find_files(value: str, folder: Path, *, is_required: bool = False) -> _Files:
    """The files that ``value`` names; none if it names a model.

    :raises CommandFailed: it is a path without a file, or no file although ``is_required``.
    """
    try:
        path = folder / Path(value).expanduser()
        if path.is_file():
            return {path.name: path}
        if path.is_dir():
            return files_in(path)
    except (OSError, RuntimeError, ValueError) as reason:  # no home, a NUL, a name too long
        raise CommandFailed(f"{value}: {reason}") from None
    if is_required or value.startswith(("/", "./", "../", "~")):
        raise CommandFailed(f"{value}: no such file")
    return {}


def _merge(chosen: list[_Files]) -> _Files:
    """All files in one mapping; duplicate names get a number in front."""
    merged: _Files = {}
    for files in chosen:
        for name, path in files.items():
            free = name if name not in merged else f"{len(merged)}-{name}"
            merged[free] = path
    return merged


def _upload(client: Client, path: Path, progress: Progress) -> str:
    """Upload the file unless the server has the blob; returns its digest."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            digest = _digest(file, size_bytes, path.name, progress)
            if not client.has_blob(digest):
                text = f"copying file {digest}"
                file.seek(0)
                client.send_blob(
                    digest, file, size_bytes, lambda sent: progress.update(text, sent, size_bytes)
                )
    except OSError as reason:
        raise CommandFailed(f"{path}: {reason.strerror or reason}") from reason
    return digest


def _digest(file: BinaryIO, size_bytes: int, name: str, progress: Progress) -> str:
    sha256 = hashlib.sha256()
    done = 0
    while chunk := file.read(CHUNK_BYTES):
        sha256.update(chunk)
        done += len(chunk)
        progress.update(f"hashing {name}", done, max(size_bytes, done))
    return f"sha256:{sha256.hexdigest()}"
