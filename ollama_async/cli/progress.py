"""What a long command says while it works: one redrawn line on a terminal, else plain lines."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

REDRAW_EVERY_S = 0.1


class Progress:
    """Steps of a command, on stderr. On a terminal a step's line is redrawn until the next one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._step = ""
        self._drawn_at = 0.0

    def step(self, text: str) -> None:
        """A new step begins; saying the same again is silent."""
        if text == self._step:
            return
        self._end_line()
        self._step = text
        self._stream.write(text if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def share(self, text: str, done: int, total: int) -> None:
        """``text`` is the step, and ``done`` of ``total`` of it are done."""
        if not self._is_terminal:
            self.step(text)
            return
        now = time.monotonic()
        if text == self._step and now - self._drawn_at < REDRAW_EVERY_S and done < total:
            return
        if text != self._step:
            self._end_line()
            self._step = text
        self._drawn_at = now
        share = f" {done * 100 // total if total else 100}%"
        room = shutil.get_terminal_size().columns - 1 - len(share)
        shown = text if len(text) <= room else f"{text[: max(room - 3, 0)]}..."
        self._stream.write(f"\r{shown}{share}\x1b[K")  # one row, or it could not be drawn again
        self._stream.flush()

    def end(self) -> None:
        """Nothing more comes; the cursor is on a new line."""
        self._end_line()
        self._step = ""

    def _end_line(self) -> None:
        if self._step and self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()
