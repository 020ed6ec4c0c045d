"""WordPiece as llama.cpp does it for models whose tokenizer is called ``bert``.

A text is cut into words at whitespace; a punctuation mark and a Chinese character are words of
their own. Case and accents are dropped. A word is written with "▁" in front and cut from left to
right, always taking the longest piece there is, so a piece that begins a word is listed with the
"▁" and one that continues a word without. A word that no pieces make up is unknown as a whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))
WORD_START = "▁"

_SPACES = "\t\n\v\f\r\x85"  # beside those that Unicode calls so
_INVISIBLE = ("Cc", "Cf", "Co", "Cs")
_CHINESE = (
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B820),
    range(0x2B920, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
)


class WordPiece:
    """``pieces`` by id, the special ones first."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces))
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str, limit: int) -> list[int]:
        """Ids of at most ``limit`` tokens, the marks of begin and end included."""
        tokens = [token for word in words(text) for token in self._word(word)]
        return [CLS, *tokens[: limit - 2], SEP]

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            self._known[word] = self._cut(WORD_START + word)
        return self._known[word]

    def _cut(self, word: str) -> list[int]:
        tokens = []
        at = 0
        while at < len(word):
            ends = range(min(len(word), at + self._longest), at, -1)
            end = next((end for end in ends if word[at:end] in self._ids), None)
            if end is None:
                return [UNKNOWN]
            tokens.append(self._ids[word[at:end]])
            at = end
        return tokens


def words(text: str) -> list[str]:
    """The words of a text in lower case and without accents."""
    spaced = []
    for written in text:
        char = unicodedata.normalize("NFD", written)[0]  # the engine, too, drops what follows
        category = unicodedata.category(char)
        if category[0] == "Z" or char in _SPACES:
            spaced.append(" ")
        elif category[0] == "M" or category in _INVISIBLE or char == "\ufffd":
            continue
        elif category[0] == "P" or (category[0] == "S" and char.isascii()) or _is_chinese(char):
            spaced += [" ", char, " "]
        else:
            spaced.append(char.lower())
    return "".join(spaced).split()


def _is_chinese(char: str) -> bool:
    return any(ord(char) in block for block in _CHINESE)
