"""What an answer consists of, on its way from the queue to a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from ollama_async.core.conversation import Thought, ToolCall

Piece = str | Thought | ToolCall
"""Text, or what else a model says."""


class AnswerContent(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or one part of it. ``calls`` are in order and have their numbers and ids."""

    content: str = ""
    thinking: str = ""
    calls: list[ToolCall] = []


def join_deltas(pieces: Iterable[Piece]) -> AnswerContent:
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
    return AnswerContent(content="".join(content), thinking="".join(thinking), calls=calls)


def split_runs(pieces: Iterable[Piece]) -> Iterator[AnswerContent]:
    """In order; neighbours of one kind are one."""
    return (join_deltas(run) for _, run in groupby(pieces, key=type))
