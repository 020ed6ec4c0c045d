"""Standard output and error of a command, safe to show what a server says.

Whatever is printed goes through :class:`EscapingStream`; what a command itself wants to tell the
terminal (colours, cursor movements, bars) goes to :func:`direct`.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from ollama_async.core.safe_text import escape_text


class EscapingStream(io.TextIOBase):
    """``target`` with control characters escaped. It stays the owner of the descriptor."""

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


def direct(stream: TextIO) -> TextIO:
    """Where control sequences of our own go. All foreign text in what is written is escaped."""
    return stream.target if isinstance(stream, EscapingStream) else stream


@contextlib.contextmanager
def escaping_streams() -> Iterator[None]:
    """Errors are escaped wherever they go. Output is only on a terminal: a Modelfile or an answer
    in a file is what the server sent, byte for byte.
    """
    output = EscapingStream(sys.stdout) if sys.stdout.isatty() else sys.stdout
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(EscapingStream(sys.stderr)),
    ):
        yield
