"""What a process prints: its lines go to the log, and what tells of its death is kept.

Most of what a process prints is not about its death, and what is may be followed by much else: a
debugger that is installed has ggml print the stack of every thread after a failed assertion. So
lines that only a dying process prints are kept apart, whatever comes after them.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

TAIL_BYTES = 8 << 10

MOST_LINES = 500
"""Looked at in one gulp: each costs some 5 µs, and one that is logged four times as much."""

_RECENT_S = 60.0
"""How long before a ready process dies it may have said why. A debugger takes seconds."""

_MOST_DEADLY = 8
_LONGEST_DEADLY = 1000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""What a terminal obeys, and what turns the order of a line around."""

_TRACEBACK = "Traceback (most recent call last)"
_DEADLY = re.compile(
    r"assert|\.(?:c|cc|cpp|cu|cuh|h|hpp|m|mm|rs):\d+: |"
    r"(?:CUDA|HIP|ROCm|MUSA|SYCL|Vulkan|Metal) error|terminate called|what\(\)|\bfatal|\bpanic|"
    r"segmentation fault|bus error|illegal instruction|\baborted\b|out of memory|bad_alloc|"
    r"smashing|corrupted|double free|free\(\): |malloc\(\): ",
    re.IGNORECASE,
)
_TELLING = re.compile(r"error|fail|abort|exception|cannot|denied", re.IGNORECASE)
_INFORMATION = re.compile(r"\b(?:INFO|DEBUG|TRACE)\b|^\W*(?:info|debug|trace)\b\W*:")
_STACK = re.compile(
    r"^#\d+ |"  # a frame, as gdb writes it
    r"^\d+\s+(?:in )?\S+(?:: No such file|$)|"  # its line in a source that is not there
    r"\[0x[0-9a-f]+\]$|\(\S*\+0x[0-9a-f]+\)|"  # as the C library and libunwind do
    r"^\[(?:New LWP|Thread|Inferior)\b"
)


class OutputTail:
    """The last 8 KiB that a process printed, and each whole line to ``on_line``. Of one gulp with
    very many lines the rest is only counted, to ``on_skipped``.
    """

    def __init__(
        self,
        on_line: Callable[[str], None],
        on_skipped: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tail = bytearray()
        self._partial = b""
        self._deadly: deque[tuple[float, str]] = deque(maxlen=_MOST_DEADLY)
        self._is_in_traceback = False
        self._is_ready = False
        self._fed_at = 0.0
        self._on_line = on_line
        self._on_skipped = on_skipped
        self._clock = clock

    def feed(self, data: bytes, *, most_lines: int = MOST_LINES) -> None:
        self._fed_at = self._clock()
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > TAIL_BYTES:  # a line without end must not grow for ever
            lines, self._partial = [*lines, self._partial], b""
        if len(lines) > most_lines:
            self._on_skipped(len(lines) - most_lines)
        for line in lines[:most_lines]:
            self._note(line)

    def close(self) -> None:
        """Forward a last line that was not ended."""
        self._note(self._partial)
        self._partial = b""

    def ready(self) -> None:
        """What was printed until now is about starting; from now on old lines tell nothing."""
        self._is_ready = True
        self._tail.clear()

    def telling_lines(self, limit: int = 3, *, has_spoken: bool = True) -> list[str]:
        """The last lines that only a dying process prints; if there are none, those that sound like
        a failure; if none does and the process ``has_spoken`` before it died, its last lines.
        """
        if deadly := [text for at, text in self._deadly if self._counts(at)]:
            return deadly[-limit:]
        lines = self._ordinary() if self._counts(self._fed_at) else []
        telling = [line for line in lines if _TELLING.search(line)]
        return (telling or (lines if has_spoken else []))[-limit:]

    def _note(self, line: bytes) -> None:
        text = _printable(line)
        if not text:
            return
        self._on_line(text)
        if self._is_deadly(text, is_indented=line[:1].isspace()):
            self._deadly.append((self._fed_at, text[:_LONGEST_DEADLY]))

    def _is_deadly(self, text: str, *, is_indented: bool) -> bool:
        """Of Python's report of an exception it is the end that matters."""
        if self._is_in_traceback:
            self._is_in_traceback = is_indented
            return not is_indented
        self._is_in_traceback = _TRACEBACK in text
        return _is_ordinary(text) and _DEADLY.search(text) is not None

    def _ordinary(self) -> list[str]:
        texts = (_printable(line) for line in bytes(self._tail).split(b"\n"))
        return [text for text in texts if text and _is_ordinary(text)]

    def _counts(self, at: float) -> bool:
        return not self._is_ready or self._clock() - at <= _RECENT_S


def _is_ordinary(text: str) -> bool:
    return not (_INFORMATION.search(text) or _STACK.search(text))


def _printable(line: bytes) -> str:
    return _CONTROL.sub(" ", line.decode(errors="replace")).strip()
