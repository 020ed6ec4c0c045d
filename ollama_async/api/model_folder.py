"""Which files of a folder make a model."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

_WEIGHTS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("adapter*.safetensors",),
    ("*.gguf",),
)
"""The first that there is; files of the later kinds are the same weights in another form."""
_BESIDE = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model")
"""What safetensors need besides: shapes, vocabulary, template."""

NOTHING = "no Modelfile or safetensors files found"


def files_in(folder: Path) -> dict[str, Path]:
    """The files of the model in ``folder`` by their names there, see :func:`files_of_model`.

    :raises ValueError: there is no model.
    :raises OSError: the folder cannot be read.
    """
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: named[name] for name in files_of_model(named)}


def files_of_model(names: Iterable[str]) -> list[str]:
    """``names`` are those of all files, relative, with slashes. Hidden files do not count.

    :raises ValueError: :data:`NOTHING`.
    """
    known = sorted(name for name in names if not name.startswith(".") and "/." not in name)
    for kinds in _WEIGHTS:
        weights = [name for name in known if _matches(name, kinds)]
        if weights:
            beside = [name for name in known if _matches(name, _BESIDE)]
            return weights if kinds == ("*.gguf",) else weights + beside
    raise ValueError(NOTHING)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """As a shell does it: no star stands for a slash."""
    return any(
        name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns
    )
