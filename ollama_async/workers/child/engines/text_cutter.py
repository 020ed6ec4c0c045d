"""Cuts long texts into pieces that can be tokenized one by one.

Before it tokenizes, the library takes the special tokens out of a text, and its time grows with the
square of their number: a megabyte of nothing but ``<|im_start|>`` would take a minute, in one call
that cannot be interrupted. A piece has few of them.

A text may be cut where the library surely takes out a token that begins there, since what lies
between special tokens is tokenized by itself. The library looks for the longest token first, then
for shorter ones in what is left. So no other token may reach across the cut, nor take a part of the
one that begins at it. Some tokens also remove the white space beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

PIECE_TOKENS = 256
"""About how many special tokens a piece has. So many take the library a tenth of a millisecond."""

_WINDOW_BYTES = 64 << 10
_START_BYTES = 4


class TextCutter:
    """``special``: the special tokens by their text; True for those that remove the white space
    before them. ``strips_after``: whether any removes the white space after it.

    Thread-safe.
    """

    def __init__(self, special: Mapping[bytes, bool], *, strips_after: bool) -> None:
        self._special = {text: strips for text, strips in special.items() if text}
        self._strips = strips_after or any(self._special.values())
        self._longest = max(map(len, self._special), default=0)
        self._lengths: dict[int, list[int]] = {}  # by the first byte; the longest first
        for text in sorted(self._special, key=len, reverse=True):
            lengths = self._lengths.setdefault(text[0], [])
            if len(text) not in lengths:
                lengths.append(len(text))
        starts = sorted({re.escape(text[:_START_BYTES]) for text in self._special})
        self._start = re.compile(b"|".join(starts)) if starts else None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The pieces, which together are ``data``. No call holds the interpreter for long."""
        begin = tokens = 0
        for at in self._starts(data):
            tokens += 1
            if tokens > PIECE_TOKENS and self._may_cut(data, begin, at):
                yield data[begin:at]
                begin, tokens = at, 1
        yield data[begin:]

    def _starts(self, data: bytes) -> Iterator[int]:
        """Where special tokens may begin."""
        for window in range(0, len(data) if self._start else 0, _WINDOW_BYTES):
            assert self._start
            end = window + _WINDOW_BYTES
            for match in self._start.finditer(data, window, end + _START_BYTES - 1):
                if match.start() < end:
                    yield match.start()

    def _may_cut(self, data: bytes, begin: int, at: int) -> bool:
        own = next(self._lengths_at(data, at), 0)
        if not own:
            return False
        token = data[at : at + own]
        if self._strips and (token[:1].isspace() or token[-1:].isspace()):
            return False  # it may be removed
        if self._special[token] and data[at - 1 : at].isspace():
            return False
        for start in range(max(begin, at - self._longest + 1), at):
            if next(self._lengths_at(data, start), 0) > at - start:
                return False
        return not any(
            length >= own and start + length > at + own
            for start in range(at + 1, at + own)
            for length in self._lengths_at(data, start)
        )

    def _lengths_at(self, data: bytes, at: int) -> Iterator[int]:
        """Of the special tokens whose text is at this place, the longest first."""
        for length in self._lengths.get(data[at], ()) if at < len(data) else ():
            if data[at : at + length] in self._special:
                yield length
