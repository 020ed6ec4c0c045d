"""Decodes base64 in JSON as Go's ``encoding/json`` does, with its errors."""

from __future__ import annotations

import binascii
import re
from itertools import islice

_FOREIGN = re.compile(r"[^A-Za-z0-9+/\r\n]")


def from_base64(text: str, *, offset: int = 0) -> bytes:
    """The bytes of standard base64 with padding; line ends inside are skipped, as in Go.

    ``offset`` is added to the position in the error.

    :raises ValueError: ``illegal base64 data at input byte N``.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    packed = text.replace("\r", "").replace("\n", "")
    try:
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError:
        raise ValueError(
            f"illegal base64 data at input byte {offset + _illegal_at(text)}"
        ) from None


def _illegal_at(text: str) -> int:
    """Where Go stops reading base64: the offset, in bytes of UTF-8, of the first thing wrong."""
    foreign = _FOREIGN.search(text)
    if foreign is None:  # the last group of four is short
        letters = len(text) - text.count("\r") - text.count("\n")
        return len(text) - letters % 4
    at = foreign.start()
    before = text[:at]
    letters = at - before.count("\r") - before.count("\n")
    if foreign.group() != "=" or letters % 4 < 2:
        return at
    after = (index for index in range(at + 1, len(text)) if text[index] not in "\r\n")
    rest = list(islice(after, 2))
    if letters % 4 == 2:
        if not rest:
            return len(text)
        if text[rest[0]] != "=":
            return rest[0] - 1
        del rest[0]
    return rest[0] if rest else len(text)
