"""What an answer consists of, on its way from the queue to a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from ollama_async.core.conversation import Thought, ToolCall

Piece = str | Thought | ToolCall
"""Text, or what else a model says."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or one part of it. ``calls`` are in order and have their numbers and ids."""

    content: str = ""
    thinking: str = ""
    calls: list[ToolCall] = []


def joined(pieces: Iterable[Piece]) -> Said:
    """All of them as one."""
    content: list[str] = []
    thinking: list[str] = []
    calls: list[ToolCall] = []
    for piece in pieces:
        match piece:
            case str():
                content.append(piece)
            case Thought(text):
                thinking.append(text)
            case ToolCall():
                calls.append(piece)
    return Said(content="".join(content), thinking="".join(thinking), calls=calls)


def runs(pieces: Iterable[Piece]) -> Iterator[Said]:
    """In order; neighbours of one kind are one."""
    return (joined(run) for _, run in groupby(pieces, key=type))
