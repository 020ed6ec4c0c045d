"""Progress on a terminal, drawn by ``rich``."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.table import Column
from rich.text import Text

from ollama_async.cli.terminal import direct
from ollama_async.core.safe_text import escape_text

_NAME_COLUMNS = 28  # of 80, so that a digest leaves room for the bar
_WIDE_COLUMNS = 76  # what is narrower has room for a share, but not for rate and time


class Bars:
    """One step with a spinner, or several with bars; what is over stays as it was.

    A thread draws ten times a second until :meth:`end`.
    """

    def __init__(self, stream: TextIO) -> None:
        # The texts are a server's: they are shown, never taken for markup.
        self._console = Console(file=direct(stream), markup=False, highlight=False, emoji=False)
        self._spinner: Status | None = None
        self._spinning = ""
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def step(self, text: str) -> None:
        text = escape_text(text)
        if self._spinner is not None and text == self._spinning:
            return
        self.end()
        self._spinning = text
        self._spinner = self._console.status(Text(text))
        self._spinner.start()

    def share(self, text: str, done_bytes: int, total_bytes: int) -> None:
        text = escape_text(text)
        if self._bars is None:
            self.end()
            self._bars = self._new_bars()
            self._bars.start()
        if text in self._tasks:
            self._bars.update(self._tasks[text], completed=done_bytes, total=total_bytes)
        else:  # begun with what is there, which took no time and must not count as speed
            task = self._bars.add_task(text, total=total_bytes, completed=done_bytes)
            self._tasks[text] = task

    def end(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._console.print(self._spinning, soft_wrap=True)
            self._spinner = None
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _new_bars(self) -> Progress:
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
        return Progress(*columns, console=self._console, expand=True)
