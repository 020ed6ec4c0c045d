"""Paths of this machine in what clients are told: each has a name that says as much."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

_log = logging.getLogger(__name__)
_LOGGED = 500
"""Characters of a text; it may quote what a client has sent."""
_LEAST_PARTS = 2
"""Of a path: the root of the file system is no secret, and would be found in every text."""


class _Names:
    """Which path is called what; nothing is hidden before the server has said so."""

    def __init__(self) -> None:
        self.by_path: dict[str, str] = {}
        self.pattern: re.Pattern[str] | None = None

    def replaced(self, match: re.Match[str]) -> str:
        return self.by_path[match[0]]


_names = _Names()


def hide(names: Mapping[Path, str]) -> None:
    """From now on these paths are called by their names; links among them are followed, too."""
    _names.by_path = {
        str(spelled): name
        for path, name in names.items()
        for spelled in (path.absolute(), path.resolve())
        if len(spelled.parts) >= _LEAST_PARTS
    }
    longest_first = sorted(_names.by_path, key=len, reverse=True)
    paths = "|".join(map(re.escape, longest_first))
    _names.pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w-])") if paths else None


def without_paths(text: str) -> str:
    """``text`` as a client may read it. If it names a path, the log has all of it."""
    if _names.pattern is None:
        return text
    said = _names.pattern.sub(_names.replaced, text)
    if said != text:
        _log.warning("%r", text[:_LOGGED])
    return said
