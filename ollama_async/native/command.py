"""Runs one long command with signs of life on the terminal and its output in a log file.

Standard library only: the set-up uses this before anything is installed.
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
PLAIN_LINE_EVERY_S = 15.0
TAIL_LINES = 25
_STEPS = re.compile(rb"\[(\d+)/(\d+)\]")  # ninja: "[12/345] Building CXX object …"
_SPINNER = "|/-\\"


class CommandFailed(Exception):
    """The command ended with an error or ran too long; the message ends with its last lines."""


def run(
    command: Sequence[str],
    *,
    title: str,
    log: Path,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
    stream: TextIO = sys.stderr,
) -> None:
    """Run to the end. ``log`` is overwritten; its tail is in the error.

    On a terminal one line is redrawn with the elapsed time and, where the output has ninja's
    counters, the share done; elsewhere a plain line appears now and then. Whatever happens, the
    command and its children are gone when this returns (its process group is killed).

    :raises CommandFailed: see the class.
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
            tail = _pump(process, sink, display, time.monotonic() + timeout_s)
            status = process.wait(timeout=TICK_S * 50)
        except BaseException as reason:
            _kill_group(process)
            if isinstance(reason, (TimeoutError, subprocess.TimeoutExpired)):
                display.end("took too long")
                raise CommandFailed(f"{title}: no end within {timeout_s:.0f} s; {log}") from reason
            display.end("interrupted")
            raise
    if status:
        display.end("failed")
        lines = "\n".join(f"    {line}" for line in tail)
        raise CommandFailed(f"{title}: exit status {status}; the end of {log}:\n{lines}")
    display.end("done")


def _pump(
    process: subprocess.Popen[bytes], sink: BinaryIO, display: _Display, deadline: float
) -> list[str]:
    """Copy output to the log until end of file; returns the last lines.

    :raises TimeoutError: the deadline has passed.
    """
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
                steps = _STEPS.findall(chunk)
                if steps:
                    display.done, display.total = (int(number) for number in steps[-1])
            display.tick()
    recent.append(rest)
    return [line.decode(errors="replace").rstrip() for line in recent if line.strip()]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
    process.wait()


class _Display:
    """One line about one command."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.done = 0
        self.total = 0
        self.began = time.monotonic()
        self.is_terminal = stream.isatty()
        self.turns = 0
        self.next_plain_s = 0.0

    def tick(self) -> None:
        elapsed = time.monotonic() - self.began
        if self.is_terminal:
            self.turns += 1
            turn = _SPINNER[self.turns % len(_SPINNER)]
            self.stream.write(f"\r\033[K{turn} {self.title} {self._share()}{_clock(elapsed)}")
        elif elapsed >= self.next_plain_s:
            self.next_plain_s = elapsed + PLAIN_LINE_EVERY_S
            self.stream.write(f"  {self.title} {self._share()}{_clock(elapsed)}\n")
        self.stream.flush()

    def end(self, outcome: str) -> None:
        clear = "\r\033[K" if self.is_terminal else ""
        elapsed = _clock(time.monotonic() - self.began)
        self.stream.write(f"{clear}  {self.title}: {outcome} in {elapsed}\n")
        self.stream.flush()

    def _share(self) -> str:
        return f"{self.done}/{self.total} " if self.total else ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
