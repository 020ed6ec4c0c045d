"""Draws progress on a terminal with ``rich``."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.status import Status
from rich.table import Column
from rich.text import Text

from ollama_async.cli.progress import Progress
from ollama_async.cli.terminal import unescaped
from ollama_async.core.safe_text import escape_text

_NAME_COLUMNS = 28  # of 80, so that a digest leaves space for the bar
_WIDE_COLUMNS = 76  # a narrower terminal shows the share, but not rate and time


class ProgressBars(Progress):
    """One step with a spinner, or several with bars; completed ones stay on the screen.

    A thread redraws ten times a second until :meth:`end`.
    """

    def __init__(self, stream: TextIO) -> None:
        # The texts are a server's: they are shown, never taken for markup.
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
        else:  # starts with what is already there, which must not count as speed
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
        name = Column(max_width=_NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False, table_column=name),
            TaskProgressColumn(),
            BarColumn(bar_width=None),
        ]
        if self._console.width >= _WIDE_COLUMNS:
            columns += [
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(compact=True),
            ]
        return RichProgress(*columns, console=self._console, expand=True)
