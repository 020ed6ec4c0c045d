"""Runs one long command with its progress on the terminal and its output in a log file.

Standard library only: installation uses this before any package is installed.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

TICK_S = 0.2
LINE_INTERVAL_S = 15.0
TAIL_LINES = 25
_STEPS = re.compile(rb"\[(\d+)/(\d+)\]")  # ninja: "[12/345] Building CXX object …"
_SPINNER = "|/-\\"


class LoggedCommandFailed(Exception):
    """The command failed or ran too long; the message ends with its last lines."""


def run_logged(
    command: Sequence[str],
    *,
    title: str,
    log: Path,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
    stream: TextIO = sys.stderr,
) -> None:
    """Run the command to its end. Overwrites ``log``; its last lines are in the error.

    Redraws one line on a terminal, with the elapsed time and ninja's counters; elsewhere prints a
    line now and then. After a timeout or an interrupt, kills the command's process group.

    :raises LoggedCommandFailed: see the class.
    """
    display = _Display(title, stream)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environ is None else dict(environ),
            process_group=0,
        )
        try:
            tail = _copy_output(process, sink, display, time.monotonic() + timeout_s)
            status = process.wait(timeout=TICK_S * 50)
        except BaseException as reason:
            _kill_group(process)
            if isinstance(reason, (TimeoutError, subprocess.TimeoutExpired)):
                display.end("took too long")
                raise LoggedCommandFailed(
                    f"{title}: not finished within {timeout_s:.0f} s; {log}"
                ) from reason
            display.end("interrupted")
            raise
    if status:
        display.end("failed")
        lines = "\n".join(f"    {line}" for line in tail)
        raise LoggedCommandFailed(f"{title}: exit status {status}; the end of {log}:\n{lines}")
    display.end("done")


def _copy_output(
    process: subprocess.Popen[bytes], sink: BinaryIO, display: _Display, deadline: float
) -> list[str]:
    """Copy output to the log until end of file; returns the last lines. :raises TimeoutError:"""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    recent: deque[bytes] = deque(maxlen=TAIL_LINES)
    rest = b""
    with selectors.DefaultSelector() as selector, process.stdout:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError
            if selector.select(TICK_S):
                chunk = os.read(fd, 65536)
                if not chunk:
                    break
                sink.write(chunk)
                *lines, rest = (rest + chunk)[-65536:].split(b"\n")
                recent.extend(lines)
                if steps := _STEPS.findall(chunk):
                    display.done, display.total = (int(number) for number in steps[-1])
            display.tick()
    recent.append(rest)
    return [line.decode(errors="replace").rstrip() for line in recent if line.strip()]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the pid is still valid
    process.wait()


class _Display:
    """The progress line of one command."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self.done = 0
        self.total = 0
        self._title = title
        self._stream = stream
        self._began_s = time.monotonic()
        self._is_terminal = stream.isatty()
        self._ticks = 0
        self._next_line_s = 0.0

    def tick(self) -> None:
        elapsed_s = time.monotonic() - self._began_s
        counters = f"{self.done}/{self.total} " if self.total else ""
        text = f"{self._title} {counters}{_clock(elapsed_s)}"
        if self._is_terminal:
            self._ticks += 1
            self._stream.write(f"\r\033[K{_SPINNER[self._ticks % len(_SPINNER)]} {text}")
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + LINE_INTERVAL_S
            self._stream.write(f"  {text}\n")
        self._stream.flush()

    def end(self, outcome: str) -> None:
        clear = "\r\033[K" if self._is_terminal else ""
        elapsed = _clock(time.monotonic() - self._began_s)
        self._stream.write(f"{clear}  {self._title}: {outcome} in {elapsed}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
