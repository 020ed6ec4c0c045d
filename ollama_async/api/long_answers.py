"""Answers that are too long to be joined and encoded in one call.

A call into C keeps the interpreter to itself until it is done, and one that copies a hundred
megabytes takes a tenth of a second. So long parts are encoded piece by piece, in a thread, and the
event loop gets its turn in between.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from ollama_async.core.errors import ServerError

PIECE_CHARACTERS = 64 << 10
"""What is longer is a long part: 0.5 ms at worst."""

GROUP = 64
"""Elements of a list that are encoded together."""

_to_json = msgspec.json.Encoder().encode


class LongParts:
    """The long parts of one answer. A mark stands for each until all is encoded: a random word,
    which nothing else in the answer can contain.
    """

    def __init__(self) -> None:
        self._parts: dict[bytes, str | list[Any]] = {}

    def text(self, text: str) -> str:
        """What stands for ``text`` within a string; of a short one itself."""
        return self._mark(text) if len(text) > PIECE_CHARACTERS else text

    def value(self, value: Any) -> Any:
        """As :meth:`text`, of a value; lists, too."""
        if isinstance(value, list) and len(value) > GROUP:
            return msgspec.Raw(self._mark(value).encode())
        return self.text(value) if isinstance(value, str) else value

    def to_json(self, answer: object, limit_bytes: int) -> bytearray:
        """``answer`` as one compact JSON value, with the parts in the place of their marks.

        :raises ServerError: it would be longer than ``limit_bytes``.
        """
        whole = bytearray()  # grows by moving pages, not by copying them
        for piece in self._pieces(_to_json(answer)):
            whole += piece
            if len(whole) > limit_bytes:
                raise ServerError(f"the answer is over the limit of {limit_bytes} bytes")
        return whole

    def _mark(self, part: str | list[Any]) -> str:
        mark = secrets.token_hex(16)
        self._parts[mark.encode()] = part
        return mark

    def _pieces(self, short: bytes) -> Iterator[bytes]:
        marks = b"|".join(self._parts)
        for word in re.split(b"(%b)" % marks, short) if marks else [short]:
            part = self._parts.get(word)
            if part is None:
                yield word
            elif isinstance(part, str):
                yield from _inside(part)
            else:
                yield from _list(part)


def _inside(text: str) -> Iterator[bytes]:
    """Without its quotes."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield _to_json(text[start : start + PIECE_CHARACTERS])[1:-1]


def _list(values: list[Any]) -> Iterator[bytes]:
    before = b"["
    for start in range(0, len(values), GROUP):
        group = values[start : start + GROUP]
        if any(isinstance(each, str) and len(each) > PIECE_CHARACTERS for each in group):
            for each in group:
                yield before
                yield from _element(each)
                before = b","
        else:
            yield before
            yield _to_json(group)[1:-1]
            before = b","
    yield b"]"


def _element(value: Any) -> Iterator[bytes]:
    if not isinstance(value, str):
        yield _to_json(value)
        return
    yield b'"'
    yield from _inside(value)
    yield b'"'
