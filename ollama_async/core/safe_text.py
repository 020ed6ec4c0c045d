r"""Sanitizes untrusted text for terminals, logs and clients.

Control characters are escaped as ``\x1b``: on a terminal ``ESC ] 52`` fills the clipboard, and in a
log a line break forges an entry. Paths of this machine are replaced by names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

_log = logging.getLogger(__name__)

_C0, _DEL, _C1 = range(0x20), 0x7F, range(0x80, 0xA0)
_LOGGED_CHARACTERS = 500
"""Limit for the text that is logged, which may quote a client."""
_MIN_PATH_PARTS = 2
"""The root of the file system is not private, and would match nearly every text."""


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
    """Escape control characters, except line feeds and tabs; carriage returns are dropped."""
    return text if text.isprintable() else text.translate(_TEXT)


def escape_line(text: str) -> str:
    """Escape all control characters."""
    return text if text.isprintable() else text.translate(_LINE)


def replace_unprintable(text: str, replacement: str = " ", *, keep: str = "") -> str:
    """Replace unprintable characters, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else replacement for c in text)


_redactors: list[Callable[[str], str]] = []
"""At most one; none until the server registers its paths."""


def set_private_paths(names: Mapping[Path, str]) -> None:
    """Have :func:`redact_paths` replace these paths, and what they resolve to, by their names."""
    name_of = {
        str(spelling): name
        for path, name in names.items()
        for spelling in (path.absolute(), path.resolve())
        if len(spelling.parts) >= _MIN_PATH_PARTS
    }
    paths = "|".join(map(re.escape, sorted(name_of, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w-])")
    _redactors[:] = [partial(pattern.sub, lambda match: name_of[match[0]])] if name_of else []


def redact_paths(text: str) -> str:
    """Replace private paths by their names; a text with any is also logged."""
    redacted = text
    for redact in _redactors:
        redacted = redact(redacted)
    if redacted != text:
        _log.warning("%r", text[:_LOGGED_CHARACTERS])
    return redacted
