"""Shows the progress of a long command: bars on a terminal, otherwise a few plain lines.

On a terminal a completed step stays as a line, and what can be counted is a bar with rate and
remaining time. Elsewhere (a log, a pipe) each step is a line, and a long one reports every ten
seconds how far it is.
"""

from __future__ import annotations

import importlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

import msgspec

from ollama_async.cli.client import CommandFailed
from ollama_async.cli.formatting import format_size, format_span

LINE_INTERVAL_S = 10.0


def open_progress(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Progress on ``stream``, by default stderr; ``clock`` in seconds. A context manager."""
    stream = stream or sys.stderr
    if not stream.isatty():
        return PlainProgress(stream, clock)
    # by name: the library behind it is only loaded where it has something to draw
    progress: Progress = importlib.import_module("ollama_async.cli.progress_bars").ProgressBars(
        stream
    )
    return progress


class Progress(ABC):
    """The steps of a command."""

    @abstractmethod
    def step(self, text: str) -> None:
        """Begin a step; a repetition of the same text shows nothing."""

    @abstractmethod
    def update(self, text: str, done_bytes: int, total_bytes: int) -> None:
        """``done_bytes`` of step ``text`` are done. Such steps may overlap."""

    @abstractmethod
    def end(self) -> None:
        """Leave the cursor on a new line. Idempotent."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def follow(self, updates: Iterable[Mapping[str, Any]], failure: str) -> None:
        """Show the statuses of a long operation of the server, to the last one.

        :raises CommandFailed: with ``failure``: the last one was not ``success``.
        """
        status = ""
        for update in updates:
            status = str(update.get("status", ""))
            done, total = update.get("completed", 0), update.get("total", 0)
            if isinstance(total, int) and isinstance(done, int) and total > 0:
                self.update(status, max(0, min(done, total)), total)
            elif status:
                self.step(status)
        if status != "success":
            raise CommandFailed(failure)


class PlainProgress(Progress):
    """Lines for a file or a pipe."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._step = ""
        self._counts: dict[str, _Count] = {}

    def step(self, text: str) -> None:
        if text != self._step:
            self._step = text
            self._print(text)

    def update(self, text: str, done_bytes: int, total_bytes: int) -> None:
        now_s = self._clock()
        count = self._counts.get(text)
        if count is None:
            self._counts[text] = _Count(now_s, done_bytes, now_s)
            self._print(text)
        elif now_s - count.printed_at_s >= LINE_INTERVAL_S:
            count.printed_at_s = now_s
            self._print(f"{text}: {count.describe(now_s, done_bytes, total_bytes)}")

    def end(self) -> None:
        self._step = ""
        self._counts.clear()

    def _print(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class _Count(msgspec.Struct):
    """When a step with a total began, what was done by then, and when it was last printed."""

    began_at_s: float
    began_with_bytes: int
    printed_at_s: float

    def describe(self, now_s: float, done_bytes: int, total_bytes: int) -> str:
        """``42% of 2 GB, 12 MB/s, 2 minutes left``; the rate is the average since the start."""
        share = f"{done_bytes * 100 // total_bytes}% of {format_size(total_bytes)}"
        rate = (done_bytes - self.began_with_bytes) / (now_s - self.began_at_s)
        if rate <= 0 or done_bytes == total_bytes:
            return share
        left = format_span((total_bytes - done_bytes) / rate).lower()
        return f"{share}, {format_size(int(rate))}/s, {left} left"
