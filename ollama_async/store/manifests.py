"""The ``manifests`` folder: ``HOST/NAMESPACE/MODEL/TAG``, found without regard to case."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ollama_async.core.errors import BadRequest, Forbidden
from ollama_async.core.model_names import ModelName, split_source
from ollama_async.store.files import NewFile, sync_folder

_MOST_ALIASES = 1024  # clients choose the spelling, so what is remembered of it must be bounded


def local_name(text: str) -> ModelName:
    """The name that a client means when it says ``text``; ``:local`` is taken off.

    :raises BadRequest: it is no name.
    :raises Forbidden: it asks for a cloud model.
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
    """Thread-safe. Names keep the spelling of whoever created them first."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "manifests"
        self._base = str(self.folder)
        self._aliases: dict[ModelName, str] = {}

    def likely_path(self, name: ModelName) -> str:
        """Where the manifest is if it is spelled as asked, or as it was found before.

        Costs microseconds and no disk; the file may not exist.
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
        """The name as a new manifest should be spelled: as far as possible like what is there."""
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
        """:raises ValueError: the path is no model's."""
        parts = Path(path).relative_to(self.folder).parts
        if len(parts) != 4:
            raise ValueError("invalid model name")
        return ModelName.from_parts(*parts)

    def all(self) -> Iterator[tuple[ModelName, str]]:
        """Every file that has a valid name, in no order."""
        for path in self._files(self._base, 4):
            with suppress(ValueError):
                yield self.name_of(path), path

    def write(self, name: ModelName, data: bytes) -> str:
        """Publish a manifest; returns its path. :raises OSError:"""
        folder = self.folder.joinpath(*name.parts[:3])
        with NewFile(folder) as file:
            file.write(data)
            file.publish(name.tag)
        return str(folder / name.tag)

    def remove(self, path: str) -> None:
        """Remove a manifest, for good, and the folders that it leaves empty. :raises OSError:"""
        Path(path).unlink()
        sync_folder(Path(path).parent)  # or a power cut brings it back without its blobs
        with suppress(OSError):  # not empty: the usual end
            for folder in Path(path).parents[:3]:
                folder.rmdir()

    def remove_empty_folders(self) -> None:
        for host in _entries(self._base):
            for namespace in _entries(host.path):
                for model in _entries(namespace.path):
                    _remove_if_empty(model)
                _remove_if_empty(namespace)
            _remove_if_empty(host)

    def _matches(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        """Paths below ``folder`` that equal ``parts`` but for case."""
        if not parts:
            yield folder
            return
        wanted = parts[0].lower()
        matching = [entry for entry in _entries(folder) if entry.name.lower() == wanted]
        for entry in sorted(matching, key=lambda entry: (entry.name != parts[0], entry.name)):
            yield from self._matches(entry.path, parts[1:])

    def _files(self, folder: str, depth: int) -> Iterator[str]:
        for entry in _entries(folder):
            if depth > 1:
                yield from self._files(entry.path, depth - 1)
            elif _is_file(entry.path):
                yield entry.path


def _is_file(path: str) -> bool:
    """Unlike a Path's own, no error where a name is too long, or a link leads in a circle."""
    return os.path.isfile(path)  # noqa: PTH113  # that is what differs


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not a folder, or gone meanwhile
        return []


def _remove_if_empty(entry: os.DirEntry[str]) -> None:
    with suppress(OSError):
        Path(entry.path).rmdir()
