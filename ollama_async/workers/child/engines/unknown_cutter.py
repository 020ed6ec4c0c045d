"""Cuts long texts for a SentencePiece vocabulary where no token can reach across.

Such a vocabulary merges neighbouring characters into tokens, whatever the words. A character that
it does not know becomes bytes, and the library's time grows with the square of their number: a
megabyte of line breaks would take a minute, in one call that cannot be interrupted.

No token holds a character that the vocabulary does not know, so a text may be cut before it, except
where a special token is near: some remove the white space beside them, and the library puts a space
before a text that follows one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count

PIECE_CHARACTERS = 4096
"""The least that a piece has, but the last."""

_WINDOW = 64 << 10
_SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""What the vocabulary has for a space."""
_SPACES = " \t\n\v\f\r"
_SOLID = re.compile(f"[^{_SPACES}]")
_BROKEN = re.compile("[\ud800-\udfff]")  # a part of a character
_BROKEN_OR_SPACE = re.compile(f"{_BROKEN.pattern}|[{_SPACES}]$")
_LAST = "\U0010ffff"  # so that the class of known characters is never empty


class UnknownCutter:
    """``vocabulary``: the texts of all tokens. ``special``: of those that are taken out of a text
    before it is merged. ``strips_before``, ``strips_after``: whether any of them removes the white
    space on that side of it.

    Thread-safe.
    """

    def __init__(
        self,
        vocabulary: Iterable[bytes],
        special: Collection[bytes],
        *,
        strips_before: bool,
        strips_after: bool,
    ) -> None:
        known = {_LAST, *chain.from_iterable(text.decode(errors="ignore") for text in vocabulary)}
        if _SPACE_MARK in known:
            known.add(" ")
        if strips_before:
            known.update(_SPACES)  # the library may remove them
        self.example = next(chr(code) for code in count(1) if chr(code) not in known)
        """A character that the vocabulary does not know."""
        self._unknown = re.compile("[^" + "".join(map(re.escape, sorted(known))) + "]")
        self._special = {text.decode(errors="surrogateescape") for text in special if text}
        self._lengths = sorted(set(map(len, self._special)))
        self._strips_after = strips_after
        unclear = _BROKEN_OR_SPACE if strips_after else _BROKEN
        self._is_unclear = any(map(unclear.search, self._special))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The pieces, which together are ``data``. Each but the first begins with an unknown
        character, and continues the text that is before it. No call holds the interpreter for long.
        """
        if self._is_unclear:
            yield data
            return
        text = data.decode(errors="surrogateescape")
        begin = 0
        at = self._next(self._unknown, text, PIECE_CHARACTERS)
        while at < len(text):
            if self._may_cut(text, begin, at):
                yield text[begin:at].encode(errors="surrogateescape")
                begin, after = at, at + PIECE_CHARACTERS
            elif self._strips_after and text[at] in _SPACES:
                after = self._next(_SOLID, text, at)  # the same holds for all of the white space
            else:
                after = at + 1
            at = self._next(self._unknown, text, after)
        yield text[begin:].encode(errors="surrogateescape")

    def _next(self, pattern: re.Pattern[str], text: str, begin: int) -> int:
        """Where a character of this kind is; the text's end if none is."""
        for window in range(begin, len(text), _WINDOW):
            if match := pattern.search(text, window, window + _WINDOW):
                return match.start()
        return len(text)

    def _may_cut(self, text: str, begin: int, at: int) -> bool:
        """Whether no special token ends here, nor before the white space that is here."""
        end = at
        if self._strips_after:
            nearest = max(begin, at - 2 * PIECE_CHARACTERS)
            end = nearest + len(text[nearest:at].rstrip(_SPACES))
            if end == nearest:
                return end == begin  # then what held for the cut there holds here
        return not any(
            end - length >= begin and text[end - length : end] in self._special
            for length in self._lengths
        )
