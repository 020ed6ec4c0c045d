r"""Go's strings are bytes, ours are characters: where the difference shows.

A byte that is part of no character (from ``"\xff"``, or from slicing inside a character) is kept
as the lone surrogate that Python's ``surrogateescape`` makes of it, until the text is finished.
"""

from __future__ import annotations

import re

_ESCAPED = re.compile("[\ud800-\udfff]")


def to_bytes(text: str) -> bytes:
    """The bytes that Go has in place of ``text``."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: somebody else's broken text
        return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(to_bytes(text))


def joined(text: str) -> str:
    """``text`` put together from pieces, in which two halves of a character may have met."""
    return from_bytes(to_bytes(text)) if _has_escapes(text) else text


def finished(text: str) -> str:
    """``text`` as others may see it: what is no character has become U+FFFD."""
    return to_bytes(text).decode("utf-8", "replace") if _has_escapes(text) else text


def _has_escapes(text: str) -> bool:
    return not text.isascii() and _ESCAPED.search(text) is not None
