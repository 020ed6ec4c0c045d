"""What the library says while it works: one process-wide log callback.

Warnings and errors go to stderr as they come (the parent keeps the tail of it); the last error
lines are kept for the text of a failed load; the sizes of the buffers that the library allocates
are added up, because it tells them nowhere else.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib

_WARN, _ERROR, _CONTINUED = 3, 4, 5
_BUFFER = re.compile(r"^\w+: +(\S+) +(model|LoRA|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_PROCESSOR = ("CPU", "AMX")  # AMX: main memory, laid out for the tile unit of Intel's processors
_USUAL = "cannot use buft"  # of each tensor of an adapter, where weights are laid out anew
_ORIGIN = re.compile(r"^\w+: ")


class Journal:
    """Collects what is said from its making until the next journal is made; one per load.
    ``bytes_by_kind`` maps (kind, is on a device) to bytes.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.bytes_by_kind: dict[tuple[str, bool], int] = {}
        self._level = 0
        _open_journals[:] = [self]
        lib.llama_log_set(_callback, ctypes.c_void_p(0))

    def reason(self) -> str:
        """The library's own explanation of a failure, most telling line first; may be ""."""
        lines = [_ORIGIN.sub("", line) for line in self.errors]
        # The last line only says that something failed; the one before says what.
        return next((line for line in lines if "failed to load model" not in line), "")

    def bytes_of(self, *kinds: str) -> int:
        """Bytes in buffers of these kinds, wherever they are."""
        return sum(size for (kind, _), size in self.bytes_by_kind.items() if kind in kinds)

    def device_bytes(self) -> int:
        """Bytes of all buffers that are on an accelerator."""
        return sum(size for (_, is_device), size in self.bytes_by_kind.items() if is_device)

    def write(self, level: int, raw: bytes) -> None:
        """One line of the library, or a part of one."""
        if level != _CONTINUED:
            self._level = level
        text = raw.decode(errors="replace")
        if self._level >= _WARN and _USUAL not in text:
            sys.stderr.write(text)
        line = text.strip()
        if self._level == _ERROR and line:
            self.errors.append(line)
        buffer = _BUFFER.match(line)
        if buffer:
            name, kind, mebibytes = buffer.groups()
            is_device = not name.startswith(_PROCESSOR) and not name.endswith("_Host")
            size = int(float(mebibytes) * 1024 * 1024)
            key = (kind, is_device)
            self.bytes_by_kind[key] = self.bytes_by_kind.get(key, 0) + size


def _write(level: int, raw: bytes, _data: Any) -> None:
    for journal in _open_journals:
        journal.write(level, raw)


_open_journals: list[Journal] = []
_callback = lib.llama_log_callback(_write)  # lives for ever: the library keeps only a pointer
