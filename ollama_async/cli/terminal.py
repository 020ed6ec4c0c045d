"""Makes standard output and error safe to show what a server sends.

Everything printed passes an :class:`EscapingStream`. Control sequences of our own (colours, cursor
movements, bars) go to the stream behind it, see :func:`unescaped`.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from ollama_async.core.safe_text import escape_text


class EscapingStream(io.TextIOBase):
    """``target`` with control characters escaped. ``target`` stays the owner of the descriptor."""

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
    """The stream for control sequences of our own. The caller escapes all foreign text."""
    return stream.target if isinstance(stream, EscapingStream) else stream


@contextlib.contextmanager
def escaping_streams() -> Iterator[None]:
    """Errors are escaped wherever they go; output only on a terminal: in a file, a Modelfile or an
    answer is what the server sent, byte for byte.
    """
    output = EscapingStream(sys.stdout) if sys.stdout.isatty() else sys.stdout
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(EscapingStream(sys.stderr)),
    ):
        yield
