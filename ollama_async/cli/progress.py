"""What a long command says while it works: bars on a terminal, else a few plain lines.

On a terminal a step that is over stays as a line; what can be counted is a bar with its rate and
the time that is left. Elsewhere (a log, a pipe) each step is a line, and one that takes long says
every ten seconds how far it is.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TextIO

from ollama_async.cli import formatting
from ollama_async.cli.client import CommandFailed

LINE_EVERY_S = 10.0


class Display(Protocol):
    """How progress looks; the two ways are :class:`Lines` and ``cli.progress_bars.Bars``."""

    def step(self, text: str) -> None: ...

    def share(self, text: str, done_bytes: int, total_bytes: int) -> None: ...

    def end(self) -> None: ...


class Progress:
    """Steps of a command, on stderr. :meth:`end` must be called, whatever happens."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        stream = stream or sys.stderr
        self._display: Display = _bars(stream) if stream.isatty() else Lines(stream, clock)

    def step(self, text: str) -> None:
        """A new step begins; saying the same again is silent."""
        self._display.step(text)

    def share(self, text: str, done: int, total: int) -> None:
        """``text`` is the step, and ``done`` of its ``total`` bytes are done.

        Several such steps may go on at once: the text tells them apart.
        """
        self._display.share(text, max(0, min(done, total)), total)

    def follow(self, updates: Iterable[Mapping[str, Any]], failure: str) -> None:
        """Show the statuses of a server's long work, up to the last one.

        :raises CommandFailed: with ``failure``, because the last one was not ``success``.
        """
        status = ""
        for update in updates:
            status = str(update.get("status", ""))
            done, total = update.get("completed", 0), update.get("total", 0)
            if isinstance(total, int) and isinstance(done, int) and total > 0:
                self.share(status, done, total)
            elif status:
                self.step(status)
        if status != "success":
            raise CommandFailed(failure)

    def end(self) -> None:
        """Nothing more comes; the cursor is on a new line. Idempotent."""
        self._display.end()


def _bars(stream: TextIO) -> Display:
    # by name: the library behind it is only loaded where it has something to draw
    display: Display = importlib.import_module("ollama_async.cli.progress_bars").Bars(stream)
    return display


class Lines:
    """Progress for a file or a pipe; ``clock`` in seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._step = ""
        self._counted: dict[str, _Counted] = {}

    def step(self, text: str) -> None:
        if text != self._step:
            self._step = text
            self._print(text)

    def share(self, text: str, done_bytes: int, total_bytes: int) -> None:
        now = self._clock()
        counted = self._counted.get(text)
        if counted is None:
            self._counted[text] = _Counted(now, done_bytes)
            self._print(text)
            return
        if now - counted.told_at_s >= LINE_EVERY_S:
            counted.told_at_s = now
            self._print(f"{text}: {counted.tell(now, done_bytes, total_bytes)}")

    def end(self) -> None:
        self._step = ""
        self._counted.clear()

    def _print(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class _Counted:
    """A step with a total: when it began, how much was there by then, when it was last told."""

    def __init__(self, now_s: float, done_bytes: int) -> None:
        self.told_at_s = now_s
        self._began_at_s = now_s
        self._had_bytes = done_bytes

    def tell(self, now_s: float, done_bytes: int, total_bytes: int) -> str:
        """``42% of 2 GB, 12 MB/s, 2 minutes left``; the rate is that since the step began."""
        words = f"{done_bytes * 100 // total_bytes}% of {formatting.size(total_bytes)}"
        rate = (done_bytes - self._had_bytes) / (now_s - self._began_at_s)
        if rate <= 0 or done_bytes == total_bytes:
            return words
        left = formatting.span((total_bytes - done_bytes) / rate).lower()
        return f"{words}, {formatting.size(int(rate))}/s, {left} left"
