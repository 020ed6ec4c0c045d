"""UTF-8 that arrives in pieces, as whole characters."""

from __future__ import annotations

import codecs

_DECODER = codecs.getincrementaldecoder("utf-8")


class Characters:
    """Holds an unfinished character back; what is no UTF-8 becomes U+FFFD, as Python counts it."""

    __slots__ = ("_decode", "_is_pending", "_pending")

    def __init__(self) -> None:
        decoder = _DECODER("replace")
        self._decode = decoder.decode
        self._pending = decoder.getstate
        self._is_pending = False

    def feed(self, piece: bytes) -> str:
        """The characters that are complete now; often "" for a token that is part of one."""
        if not self._is_pending and piece.isascii():
            return piece.decode("ascii")
        text = self._decode(piece)
        self._is_pending = bool(self._pending()[0])
        return text

    def flush(self) -> str:
        """What stands for an unfinished character at the end: "" or U+FFFD."""
        self._is_pending = False
        return self._decode(b"", True)  # positional in the codecs' interface
