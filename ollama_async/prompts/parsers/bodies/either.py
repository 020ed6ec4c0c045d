"""Calls that one family writes now like this, now like that."""

from __future__ import annotations

from ollama_async.prompts.parsers.bodies import Pieces, Read
from ollama_async.prompts.parsers.tool_schemas import Tools


class Either:
    """The first of some readers that understands a text."""

    def __init__(self, *readers: Read) -> None:
        self.readers = readers

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
        for read in self.readers:
            pieces = read(text, tools)
            if pieces:
                return pieces
        return None


class Between:
    """A reader of a text that has ``less`` at its beginning too much, and has lost ``after`` to the
    mark at its end.
    """

    def __init__(self, read: Read, *, less: str = "", after: str = "") -> None:
        self.read = read
        self.less = less
        self._after = after

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
        return self.read(text.removeprefix(self.less) + self._after, tools)
