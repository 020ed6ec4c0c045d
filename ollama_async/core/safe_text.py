r"""Control characters of foreign texts, made visible before a terminal or a log shows them.

A terminal obeys them: ``ESC [ 2 J`` clears the screen, ``ESC ] 52`` fills the clipboard, and C1
characters begin the same sequences in one character. In a log a line break forges an entry. Models,
registries, templates and files may put any of them into a text. Each is written as ``\x1b``.
"""

from __future__ import annotations

from collections.abc import Iterable

_C0, _DEL, _C1 = range(0x20), 0x7F, range(0x80, 0xA0)


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
    """``text`` with its line breaks and tabs, and no other control character."""
    return text if text.isprintable() else text.translate(_TEXT)


def escape_line(text: str) -> str:
    """``text`` as one line, without any control character."""
    return text if text.isprintable() else text.translate(_LINE)
