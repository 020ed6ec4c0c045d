"""Escapes control characters of the server's texts on the terminal.

Prints go through an :class:`EscapingStream`. Our own control sequences (colours, cursor movements,
bars) bypass it, see :func:`unescaped`.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from ollama_async.core.safe_text import escape_text


class EscapingStream(io.TextIOBase):
    """Writes to ``target`` with control characters escaped. Does not own ``target``."""

    def __init__(self, target: TextIO) -> None:
        self.target = target

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base has a variable that is never set
        return self.target.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        return self.target.errors

    def write(self, text: str) -> int:
        self.target.write(escape_text(text))
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self.target.flush()

    def isatty(self) -> bool:
        return self.target.isatty()

    def fileno(self) -> int:
        return self.target.fileno()


def unescaped(stream: TextIO) -> TextIO:
    """The stream for our own control sequences. The caller escapes all other text."""
    return stream.target if isinstance(stream, EscapingStream) else stream


@contextlib.contextmanager
def escaping_streams() -> Iterator[None]:
    """Escape errors always, and output only on a terminal: in a file, it is byte for byte."""
    output = EscapingStream(sys.stdout) if sys.stdout.isatty() else sys.stdout
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(EscapingStream(sys.stderr)),
    ):
        yield
