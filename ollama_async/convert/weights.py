"""All tensors of a directory, whichever of its files they lie in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from ollama_async.convert.config_files import Files, read_document
from ollama_async.convert.safetensors import Floats, Safetensors, Tensor
from ollama_async.core.errors import BadRequest

INDEX = "model.safetensors.index.json"
_MAX_SHARDS = 256  # each holds a descriptor; the largest models known have 163


class Weights:
    """Tensors by name. Close it, or use it as a context; everything blocks on the disk."""

    def __init__(self, files: Files) -> None:
        """
        :raises BadRequest: a file is broken, or the index does not fit the files.
        :raises OSError: a file cannot be read.
        """
        self._homes: dict[str, Safetensors] = {}
        self._stack = ExitStack()
        try:
            index = _index(files)
            if index is None:
                self._add_all(files, _unlisted(files))
            else:
                self._add_listed(files, index)
        except BaseException:
            self.close()
            raise
        self.tensors: dict[str, Tensor] = {
            name: home.tensors[name] for name, home in self._homes.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """As :meth:`Safetensors.read`."""
        return self._homes[name].read(name, start, stop)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_all(self, files: Files, names: list[str]) -> None:
        for home in self._opened(files, names):
            for name in home.tensors:
                if name in self._homes:
                    raise BadRequest(f"tensor {name[:80]!r} is in two files")
                self._homes[name] = home

    def _add_listed(self, files: Files, index: dict[str, str]) -> None:
        homes = {home.name: home for home in self._opened(files, sorted(set(index.values())))}
        for name, file in index.items():
            if name not in homes[file].tensors:
                raise BadRequest(f'tensor {name[:80]!r} is not in "{file}", where {INDEX} says')
            self._homes[name] = homes[file]

    def _opened(self, files: Files, names: list[str]) -> Iterable[Safetensors]:
        if len(names) > _MAX_SHARDS:
            raise BadRequest(f"{len(names)} safetensors files, at most {_MAX_SHARDS} are allowed")
        for name in names:
            yield self._stack.enter_context(Safetensors(files[name], name))


def _index(files: Files) -> dict[str, str] | None:
    """Tensor to file, each of which is one of ``files``; None without an index."""
    document = read_document(files, INDEX)
    if document is None:
        return None
    section = document.section("weight_map")
    listed: dict[str, Any] = section.values if section else {}
    for name in listed.values():
        # Paths out of the directory end here, too: what was not given is never opened.
        if not isinstance(name, str) or name not in files:
            raise BadRequest(f"{INDEX} names a file that is not there: {str(name)[:200]!r}")
    return listed


def _unlisted(files: Files) -> list[str]:
    """Names of the files that hold the model where no index says so."""
    found = sorted(name for name in files if name.endswith(".safetensors") and "/" not in name)
    # Mistral publishes the same weights twice, the second time in a layout of its own.
    return [name for name in found if name.startswith("model")] or found
