"""Manifests: their JSON, byte for byte as Ollama writes it, and the folder that holds them.

Reading is lenient (extra fields, other case, other spellings of digests); writing is Go's
``json.Encoder``: field order, escaped ``<>&``, a line end. The folder is
``manifests/HOST/NAMESPACE/MODEL/TAG``; names are found without regard to case.
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
"""For one template, system text, license, …: a larger one is neither written nor read."""
LICENSES_LIMIT = 64
"""For one model. Each license is a file; a request could name a million."""
_LAYER_PREFIX = "application/vnd.ollama.image."
_MOST_ALIASES = 1024  # clients choose the spelling, so the number must be bounded


def layer_type(kind: str) -> str:
    """``application/vnd.ollama.image.KIND``."""
    return _LAYER_PREFIX + kind


class Layer(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """``from_``: the model or file that it came from."""

    media_type: str = field(default_factory=str)
    digest: str = field(default_factory=str)
    size: int = field(default_factory=int)
    from_: str = field(default="", name="from")
    name: str = ""

    @property
    def kind(self) -> str:
        """``model``, ``params``, …; "" for media types that are not Ollama's."""
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
    """Fields whose default is a factory are always written, the others only if set."""

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
    """Parse a model's name as a client gives it; ``:local`` is removed.

    :raises BadRequest: it is no name.
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
    """The ``manifests`` folder. Thread-safe. Names keep the spelling they were created with."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "manifests"
        self._base = str(self.folder)
        self._aliases: dict[ModelName, str] = {}

    def likely_path(self, name: ModelName) -> str:
        """Where the manifest is if it is spelled as requested, or where it was found before.

        Takes microseconds and no disk access; the file may not exist.
        """
        return self._aliases.get(name) or f"{self._base}/{name.manifest_path}"

    def locate(self, name: ModelName) -> str | None:
        """Path of the manifest; an exact spelling wins. Reads folders if there is none."""
        exact = f"{self._base}/{name.manifest_path}"
        if _is_file(exact):
            self._aliases.pop(name, None)
            return exact
        matches = self._matches(self._base, name.parts)
        found = next(filter(_is_file, matches), None)
        if found is None:
            self._aliases.pop(name, None)
            return None
        if len(self._aliases) >= _MOST_ALIASES:
            self._aliases.clear()
        self._aliases[name] = found
        return found

    def spelled(self, name: ModelName) -> ModelName:
        """The name as a new manifest should be spelled: like existing names where they match."""
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
        """:raises ValueError: no model can have this path."""
        parts = Path(path).relative_to(self.folder).parts
        if len(parts) != 4:
            raise ValueError("invalid model name")
        return ModelName.from_parts(*parts)

    def all(self) -> Iterator[tuple[ModelName, str]]:
        """Every file that has a valid name, in no order."""
        for entry in _entries_below(self._base, 4):
            if _is_file(entry.path):
                with suppress(ValueError):
                    yield self.name_of(entry.path), entry.path

    def write(self, name: ModelName, data: bytes) -> None:
        """Publish a manifest durably. :raises OSError:"""
        folder = self.folder.joinpath(*name.parts[:3])
        with NewFile(folder) as file:
            file.write(data)
            file.publish(name.tag)

    def remove(self, path: str) -> None:
        """Remove a manifest durably, and the folders that it leaves empty. :raises OSError:"""
        Path(path).unlink()
        sync_folder(Path(path).parent)  # or a power cut brings it back without its blobs
        with suppress(OSError):  # not empty: the usual end
            for folder in Path(path).parents[:3]:
                folder.rmdir()

    def remove_empty_folders(self) -> None:
        for levels in (3, 2, 1):
            for entry in list(_entries_below(self._base, levels)):
                with suppress(OSError):  # not empty, or no folder
                    Path(entry.path).rmdir()

    def _matches(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        """Paths below ``folder`` that equal ``parts`` but for case."""
        if not parts:
            yield folder
            return
        wanted = parts[0].lower()
        matching = [entry for entry in _entries(folder) if entry.name.lower() == wanted]
        for entry in sorted(matching, key=lambda entry: (entry.name != parts[0], entry.name)):
            yield from self._matches(entry.path, parts[1:])


def _is_file(path: str) -> bool:
    """Unlike a Path's own, no error where a name is too long, or a link leads in a circle."""
    return os.path.isfile(path)  # noqa: PTH113  # that is what differs


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not a folder, or gone meanwhile
        return []


def _entries_below(folder: str, levels: int) -> Iterator[os.DirEntry[str]]:
    """What is exactly so many levels below the folder."""
    for entry in _entries(folder):
        if levels > 1:
            yield from _entries_below(entry.path, levels - 1)
        else:
            yield entry
