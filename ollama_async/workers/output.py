"""A worker's output: lines are logged at a bounded rate, and those that explain its death are kept.

Much other output may follow the reason of a death: if a debugger is installed, ggml has it print
the stack of every thread after a failed assertion. So fatal lines are kept apart from the tail.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

TAIL_BYTES = 8 << 10

MAX_LINES = 500
"""Lines examined per read. Each costs some 5 µs, and four times as much if it is logged."""

_MAX_FLOOD_LINES = 32
"""The same while lines are dropped."""

_RECENT_S = 60.0
"""Maximum age of a reason when a ready process dies. A debugger takes seconds."""

_MAX_FATAL_LINES = 8
_MAX_FATAL_CHARACTERS = 1000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Control characters, and those that reverse the direction of text."""

_TRACEBACK = "Traceback (most recent call last)"
_FATAL = re.compile(
    r"assert|\.(?:c|cc|cpp|cu|cuh|h|hpp|m|mm|rs):\d+: |"
    r"(?:CUDA|HIP|ROCm|MUSA|SYCL|Vulkan|Metal) error|terminate called|what\(\)|\bfatal|\bpanic|"
    r"segmentation fault|bus error|illegal instruction|\baborted\b|out of memory|bad_alloc|"
    r"smashing|corrupted|double free|free\(\): |malloc\(\): ",
    re.IGNORECASE,
)
_ERROR = re.compile(r"error|fail|abort|exception|cannot|denied", re.IGNORECASE)
_INFORMATION = re.compile(r"\b(?:INFO|DEBUG|TRACE)\b|^\W*(?:info|debug|trace)\b\W*:")
_STACK = re.compile(
    r"^#\d+ |"  # a frame, as gdb writes it
    r"^\d+\s+(?:in )?\S+(?:: No such file|$)|"  # its line in a source that is not there
    r"\[0x[0-9a-f]+\]$|\(\S*\+0x[0-9a-f]+\)|"  # as the C library and libunwind do
    r"^\[(?:New LWP|Thread|Inferior)\b"
)

BURST_BYTES = 1 << 20
"""More than a load prints, or a debugger with the stack of every thread."""

BYTES_PER_S = 16 << 10

_RESUME_BYTES = 64 << 10
"""Budget needed to resume logging, so that not every other line reports dropped lines."""

_LINE_OVERHEAD_BYTES = 80
"""What the log adds to each line."""


class WorkerOutput:
    """Passes lines to ``log``, limited by a token bucket, and keeps fatal lines and the last 8 KiB.

    ``is_dropping``: the bucket is empty. Dropped lines are counted in the log.
    """

    def __init__(
        self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_dropping = False
        self._log = log
        self._clock = clock
        self._tail = bytearray()
        self._partial = b""
        self._fatal: deque[tuple[float, str]] = deque(maxlen=_MAX_FATAL_LINES)
        self._is_in_traceback = False
        self._is_ready = False
        self._fed_at = 0.0
        self._allowed_bytes = float(BURST_BYTES)
        self._counted_at = clock()
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        self._fed_at = self._clock()
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > TAIL_BYTES:  # bounds a line without end
            lines, self._partial = [*lines, self._partial], b""
        max_lines = _MAX_FLOOD_LINES if self.is_dropping else MAX_LINES
        self._dropped += len(lines[max_lines:])
        for line in lines[:max_lines]:
            self._examine(line)

    def close(self) -> None:
        """Forward a last line without a line feed, and report dropped lines."""
        self._examine(self._partial)
        self._partial = b""
        self._report_dropped()

    def mark_ready(self) -> None:
        """The model is loaded: from now on only recent lines can explain a death."""
        self._is_ready = True
        self._tail.clear()

    def failure_lines(self, limit: int = 3, *, include_ordinary: bool = True) -> list[str]:
        """The last lines that explain a death: fatal ones, else errors, else perhaps any."""
        if fatal := [text for at, text in self._fatal if self._is_recent(at)]:
            return fatal[-limit:]
        lines: list[str] = []
        if self._is_recent(self._fed_at):
            texts = (_printable(line) for line in bytes(self._tail).split(b"\n"))
            lines = [text for text in texts if text and _is_relevant(text)]
        errors = [line for line in lines if _ERROR.search(line)]
        return (errors or (lines if include_ordinary else []))[-limit:]

    def _examine(self, line: bytes) -> None:
        text = _printable(line)
        if not text:
            return
        self._forward(text)
        if self._is_fatal(text, is_indented=line[:1].isspace()):
            self._fatal.append((self._fed_at, text[:_MAX_FATAL_CHARACTERS]))

    def _is_fatal(self, text: str, *, is_indented: bool) -> bool:
        """Of a Python traceback only the last line counts."""
        if self._is_in_traceback:
            self._is_in_traceback = is_indented
            return not is_indented
        self._is_in_traceback = _TRACEBACK in text
        return _is_relevant(text) and _FATAL.search(text) is not None

    def _is_recent(self, at: float) -> bool:
        return not self._is_ready or self._clock() - at <= _RECENT_S

    def _forward(self, text: str) -> None:
        now = self._clock()
        gained = (now - self._counted_at) * BYTES_PER_S
        self._counted_at = now
        self._allowed_bytes = min(BURST_BYTES, self._allowed_bytes + gained)
        if self.is_dropping and self._allowed_bytes >= _RESUME_BYTES:
            self._report_dropped()
            self.is_dropping = False
        elif not self.is_dropping and self._allowed_bytes <= 0:
            self.is_dropping = True
            self._log("prints too much: most lines are dropped from here on")
        if self.is_dropping:
            self._dropped += 1
            return
        self._allowed_bytes -= len(text) + _LINE_OVERHEAD_BYTES
        self._log(text)

    def _report_dropped(self) -> None:
        if self._dropped:
            self._log(f"{self._dropped} lines dropped")
            self._dropped = 0


def _is_relevant(text: str) -> bool:
    return not (_INFORMATION.search(text) or _STACK.search(text))


def _printable(line: bytes) -> str:
    return _CONTROL.sub(" ", line.decode(errors="replace")).strip()
