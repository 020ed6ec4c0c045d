r"""Sanitizes untrusted text before a terminal, a log or a client shows it.

A terminal obeys control characters: ``ESC [ 2 J`` clears the screen, ``ESC ] 52`` fills the
clipboard, and a C1 character starts the same sequences alone. In a log a line break forges an
entry. Models, registries, templates and files may put any of them into a text; each is written as
``\x1b``. Paths of this machine are replaced by names before a client sees them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_log = logging.getLogger(__name__)

_C0, _DEL, _C1 = range(0x20), 0x7F, range(0x80, 0xA0)
_LOGGED_CHARACTERS = 500
"""How much of a text with a private path is logged; it may quote what a client sent."""
_LEAST_PATH_PARTS = 2
"""The root of the file system is no secret, and nearly every text would match it."""


def _escapes(characters: Iterable[int]) -> dict[int, str]:
    return {character: f"\\x{character:02x}" for character in characters}


_LINE = _escapes([*_C0, _DEL, *_C1]) | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_TEXT: dict[int, str | None] = {
    **_escapes([*_C0, _DEL, *_C1]),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,  # half of a line break; alone it would overwrite the line
}


def escape_text(text: str) -> str:
    """``text`` with its line breaks and tabs, but no other control character."""
    return text if text.isprintable() else text.translate(_TEXT)


def escape_line(text: str) -> str:
    """``text`` as one line without control characters."""
    return text if text.isprintable() else text.translate(_LINE)


def replace_unprintable(text: str, replacement: str = " ", *, keep: str = "") -> str:
    """``text`` with ``replacement`` for each unprintable character that is not in ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else replacement for c in text)


class _PrivatePaths:
    """Names by path. Empty until the server registers its paths."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.pattern: re.Pattern[str] | None = None


_private = _PrivatePaths()


def set_private_paths(names: Mapping[Path, str]) -> None:
    """Have :func:`redact_paths` replace these paths, and what they resolve to, by their names."""
    _private.names = {
        str(spelling): name
        for path, name in names.items()
        for spelling in (path.absolute(), path.resolve())
        if len(spelling.parts) >= _LEAST_PATH_PARTS
    }
    longest_first = sorted(_private.names, key=len, reverse=True)
    paths = "|".join(map(re.escape, longest_first))
    _private.pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w-])") if paths else None


def redact_paths(text: str) -> str:
    """``text`` as a client may read it. A text that names a private path is logged in full."""
    if _private.pattern is None:
        return text
    redacted = _private.pattern.sub(lambda match: _private.names[match[0]], text)
    if redacted != text:
        _log.warning("%r", text[:_LOGGED_CHARACTERS])
    return redacted
