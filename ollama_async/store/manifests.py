"""Manifests: their JSON, byte for byte as in Ollama, and the folder ``manifests``.

Reading is lenient (extra fields, other case, other spellings of digests). Writing is Go's
``json.Encoder``: field order, escaped ``<>&``, a line end. Files are
``manifests/HOST/NAMESPACE/MODEL/TAG``; lookups ignore case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest, Forbidden
from ollama_async.core.model_names import ModelName, split_source
from ollama_async.store.blobs import parse_digest
from ollama_async.store.files import NewFile, sync_folder

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MANIFEST_LIMIT_BYTES = 1 << 20
"""Ollama's have 1 to 2 KB; one with a layer for each of a thousand tensors has 250 KB."""
LAYERS_LIMIT = 4096
"""For one manifest, its config included."""
TEXT_LIMIT_BYTES = 1 << 20
"""For one template, system text, license, …, when written and when read."""
LICENSES_LIMIT = 64
"""For one model. Each license is a file; a request could name a million."""
_LAYER_PREFIX = "application/vnd.ollama.image."
_MAX_ALIASES = 1024  # clients choose the spelling, so the number must be bounded


def layer_type(kind: str) -> str:
    """``application/vnd.ollama.image.KIND``."""
    return _LAYER_PREFIX + kind


class Layer(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """``from_``: the model or file of origin."""

    media_type: str = field(default_factory=str)
    digest: str = field(default_factory=str)
    size: int = field(default_factory=int)
    from_: str = field(default="", name="from")
    name: str = ""

    @property
    def kind(self) -> str:
        """``model``, ``params``, …; "" for foreign media types."""
        is_ollamas = self.media_type.startswith(_LAYER_PREFIX)
        return self.media_type.removeprefix(_LAYER_PREFIX) if is_ollamas else ""


class Manifest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: int = 2
    media_type: str = MANIFEST_TYPE
    config: Layer = field(default_factory=Layer)
    layers: list[Layer] = []

    @property
    def blobs(self) -> list[Layer]:
        """All layers, and the config if there is one."""
        return [*self.layers, self.config] if self.config.digest else list(self.layers)

    @property
    def digests(self) -> set[str]:
        """Every blob that the model needs."""
        return {layer.digest for layer in self.blobs}

    @property
    def size(self) -> int:
        return sum(max(layer.size, 0) for layer in self.blobs)


class Config(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Fields with a default factory are always written, the others only if set."""

    model_format: str = field(default_factory=str)
    model_family: str = field(default_factory=str)
    model_families: list[str] | None = field(default_factory=lambda: None)
    model_type: str = field(default_factory=str)
    file_type: str = field(default_factory=str)
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: list[str] = []
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Any = None
    architecture: str = field(default_factory=str)
    os: str = field(default_factory=str)


def read_manifest(data: bytes) -> Manifest:
    """Parse a manifest; its digests are normalized.

    :raises BadRequest: not a manifest, or over :data:`LAYERS_LIMIT`, or a bad digest.
    """
    manifest = decode(data, Manifest)
    if len(manifest.blobs) > LAYERS_LIMIT:
        raise BadRequest(f"the manifest names more than {LAYERS_LIMIT} layers")
    for layer in manifest.blobs:
        layer.digest = parse_digest(layer.digest)
    return manifest


def read_config(data: bytes) -> Config:
    """:raises BadRequest: not JSON, or fields of a wrong type."""
    return decode(data, Config)


# ----------------------------------------------------------------- the folder


def local_name(text: str) -> ModelName:
    """Parse a model's name from a client; ``:local`` is removed.

    :raises BadRequest: the name is invalid.
    :raises Forbidden: it names a cloud model.
    """
    try:
        reference = split_source(text)
        name = ModelName.parse(reference.text)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if reference.is_cloud:
        raise Forbidden("ollama cloud is disabled: remote model is unavailable")
    return name


class Manifests:
    """The ``manifests`` folder. Thread-safe. Names keep their original spelling."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "manifests"
        self._base = str(self.folder)
        self._aliases: dict[ModelName, str] = {}

    def likely_path(self, name: ModelName) -> str:
        """Where :meth:`locate` found the manifest before, or the path of this exact spelling.

        Does not access the disk; the file may be missing.
        """
        return self._aliases.get(name) or f"{self._base}/{name.manifest_path}"

    def locate(self, name: ModelName) -> str | None:
        """The manifest's path. Prefers the exact spelling, otherwise searches folders."""
        exact = f"{self._base}/{name.manifest_path}"
        if _is_file(exact):
            self._aliases.pop(name, None)
            return exact
        matches = self._matches(self._base, name.parts)
        found = next(filter(_is_file, matches), None)
        if found is None:
            self._aliases.pop(name, None)
            return None
        if len(self._aliases) >= _MAX_ALIASES:
            self._aliases.clear()
        self._aliases[name] = found
        return found

    def stored_spelling(self, name: ModelName) -> ModelName:
        """The name with existing folders and files in their own spelling."""
        found = self.locate(name)
        if found is not None:
            return self.name_of(found)
        for known in range(3, 0, -1):
            match = next(self._matches(self._base, name.parts[:known]), None)
            if match is not None:
                spelled = Path(match).relative_to(self.folder).parts
                return ModelName.from_parts(*spelled, *name.parts[known:])
        return name

    def name_of(self, path: str) -> ModelName:
        """:raises ValueError: this is not a model's path."""
        parts = Path(path).relative_to(self.folder).parts
        if len(parts) != 4:
            raise ValueError("invalid model name")
        return ModelName.from_parts(*parts)

    def paths(self) -> Iterator[str]:
        """Every file with a valid name, in no order."""
        for entry in _entries_below(self._base, 4):
            if _is_file(entry.path):
                with suppress(ValueError):
                    self.name_of(entry.path)
                    yield entry.path

    def write(self, name: ModelName, data: bytes) -> None:
        """Publish a manifest durably. :raises OSError:"""
        folder = self.folder.joinpath(*name.parts[:3])
        with NewFile(folder) as file:
            file.write(data)
            file.publish(name.tag)

    def remove(self, path: str) -> None:
        """Remove a manifest durably, and its folders if empty. :raises OSError:"""
        Path(path).unlink()
        sync_folder(Path(path).parent)  # or it could reappear after a power cut, without its blobs
        with suppress(OSError):  # not empty: the usual end
            for folder in Path(path).parents[:3]:
                folder.rmdir()

    def remove_empty_folders(self) -> None:
        for levels in (3, 2, 1):
            for entry in list(_entries_below(self._base, levels)):
                with suppress(OSError):  # not empty, or no folder
                    Path(entry.path).rmdir()

    def _matches(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        """Paths below ``folder`` that equal ``parts``, ignoring case."""
        if not parts:
            yield folder
            return
        folded = parts[0].lower()
        matching = [entry for entry in _entries(folder) if entry.name.lower() == folded]
        for entry in sorted(matching, key=lambda entry: (entry.name != parts[0], entry.name)):
            yield from self._matches(entry.path, parts[1:])


def _is_file(path: str) -> bool:
    """Unlike Path.is_file, raises nothing for names that are too long or links in a circle."""
    return os.path.isfile(path)  # noqa: PTH113  # see above


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not a folder, or gone meanwhile
        return []


def _entries_below(folder: str, levels: int) -> Iterator[os.DirEntry[str]]:
    """Entries exactly ``levels`` below the folder."""
    for entry in _entries(folder):
        if levels > 1:
            yield from _entries_below(entry.path, levels - 1)
        else:
            yield entry
