"""Shows the progress of a long command: bars on a terminal, otherwise a few plain lines.

On a terminal, transfers are bars with rate and remaining time, and completed steps remain as lines.
In a log or a pipe, each step is a line, and a long one adds a line every ten seconds.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from ollama_async.cli.client import CommandFailed
from ollama_async.cli.formatting import format_size, format_span
from ollama_async.cli.terminal import unescaped
from ollama_async.core.safe_text import escape_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID
    from rich.status import Status

LINE_INTERVAL_S = 10.0
_NAME_COLUMNS = 28  # of 80, so that a digest leaves space for the bar
_WIDE_COLUMNS = 76  # a narrower terminal shows the share, but not rate and time


def open_progress(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Progress on ``stream``, by default stderr; ``clock`` in seconds. A context manager."""
    stream = stream or sys.stderr
    if not stream.isatty():
        return PlainProgress(stream, clock)
    return ProgressBars(stream)


class Progress(ABC):
    """The steps of a command."""

    @abstractmethod
    def step(self, text: str) -> None:
        """Begin a step. Ignores a repetition of the same text."""

    @abstractmethod
    def update(self, text: str, done_bytes: int, total_bytes: int) -> None:
        """``done_bytes`` of the step ``text`` are done. Such steps may overlap."""

    @abstractmethod
    def end(self) -> None:
        """Leave the cursor on a new line. Idempotent."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def follow(self, updates: Iterable[Mapping[str, Any]], failure: str) -> None:
        """Show the statuses of a long operation of the server.

        :raises CommandFailed: with ``failure``: the last status was not ``success``.
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
    """The start of a step with a total, and the time of its last line."""

    began_at_s: float
    began_with_bytes: int
    printed_at_s: float

    def describe(self, now_s: float, done_bytes: int, total_bytes: int) -> str:
        """``42% of 2 GB, 12 MB/s, 2 minutes left``, with the average rate."""
        share = f"{done_bytes * 100 // total_bytes}% of {format_size(total_bytes)}"
        rate = (done_bytes - self.began_with_bytes) / (now_s - self.began_at_s)
        if rate <= 0 or done_bytes == total_bytes:
            return share
        left = format_span((total_bytes - done_bytes) / rate).lower()
        return f"{share}, {format_size(int(rate))}/s, {left} left"


class ProgressBars(Progress):
    """One step with a spinner, or several with bars; completed ones remain on the screen.

    A thread redraws ten times a second until :meth:`end`. Imports ``rich`` only when needed.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415  # see above

        # The server's texts are not markup.
        console = Console(file=unescaped(stream), markup=False, highlight=False, emoji=False)
        self._console = console
        self._spinner: Status | None = None
        self._spinner_text = ""
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def step(self, text: str) -> None:
        text = escape_text(text)
        if self._spinner is not None and text == self._spinner_text:
            return
        self.end()
        from rich.text import Text  # noqa: PLC0415  # see above

        self._spinner_text = text
        self._spinner = self._console.status(Text(text))
        self._spinner.start()

    def update(self, text: str, done_bytes: int, total_bytes: int) -> None:
        text = escape_text(text)
        if self._bars is None:
            self.end()
            self._bars = self._create_bars()
            self._bars.start()
        if text in self._tasks:
            self._bars.update(self._tasks[text], completed=done_bytes, total=total_bytes)
        else:  # earlier bytes must not count for the rate
            task = self._bars.add_task(text, total=total_bytes, completed=done_bytes)
            self._tasks[text] = task

    def end(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._console.print(self._spinner_text, soft_wrap=True)
            self._spinner = None
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _create_bars(self) -> RichProgress:
        from rich import progress as rich  # noqa: PLC0415  # see above
        from rich.table import Column  # noqa: PLC0415

        name = Column(max_width=_NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
        columns: list[ProgressColumn] = [
            rich.TextColumn("{task.description}", markup=False, table_column=name),
            rich.TaskProgressColumn(),
            rich.BarColumn(bar_width=None),
        ]
        if self._console.width >= _WIDE_COLUMNS:
            columns += [
                rich.DownloadColumn(),
                rich.TransferSpeedColumn(),
                rich.TimeRemainingColumn(compact=True),
            ]
        return rich.Progress(*columns, console=self._console, expand=True)
