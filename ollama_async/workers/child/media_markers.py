"""Marks the places of images and recordings in the texts of a prompt, as Ollama does.

Each ``[img]`` in a text is replaced by a marker, in order; the markers of further images come in
front of the text. A raw prompt may name them, ``[img-0]`` for the first. The markers go through the
chat template as text. They contain a number that no client knows, so no text becomes an image.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import count

from msgspec.structs import replace

from ollama_async.core.conversation import Message

_SECRET = secrets.token_hex(16)
_MARKER = re.compile(rf"\[img-{_SECRET}-([0-9]{{1,9}})\]")
_PLACE = "[img]"
_NAMED = re.compile(r"\[img-([0-9]{1,9})\]")


def mark(messages: Sequence[Message]) -> list[Message]:
    """``messages`` with markers in their contents, numbered through the conversation."""
    numbers = count()
    return [
        replace(message, content=_mark(message.content, [next(numbers) for _ in message.images]))
        if message.images
        else message
        for message in messages
    ]


def mark_raw(text: str, images: int, most: int) -> str:
    """A raw prompt with markers for so many images; one may be named several times. After ``most``
    names, the others stay as they are.
    """
    named: set[int] = set()

    def marker_of(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= images:
            return match[0]
        named.add(number)
        return _marker(number)

    text = _NAMED.sub(marker_of, text, count=most)
    return _mark(text, [number for number in range(images) if number not in named])


def _mark(text: str, numbers: Sequence[int]) -> str:
    before, *rest = text.split(_PLACE, len(numbers))
    placed = "".join(
        _marker(number) + part for number, part in zip(numbers[: len(rest)], rest, strict=True)
    )
    return "".join(map(_marker, numbers[len(rest) :])) + before + placed


def _marker(number: int) -> str:
    return f"[img-{_SECRET}-{number}]"


def split(text: str) -> Iterator[str | int]:
    """The texts between markers, some of them empty, and the numbers of the markers. A template
    may have changed these.
    """
    begin = 0
    for marker in _MARKER.finditer(text):
        yield text[begin : marker.start()]
        yield int(marker[1])
        begin = marker.end()
    yield text[begin:]


def show(text: str) -> str:
    """``text`` with Ollama's placeholders, ``[img-0]`` and so on, in the order of the text."""
    numbers = count()
    return _MARKER.sub(lambda _: f"[img-{next(numbers)}]", text)
