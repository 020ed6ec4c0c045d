"""Which CPU this is, as far as compiled code and its faults depend on it. Standard library only."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

_TELLING = ("model name", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")
"""Keys of /proc/cpuinfo on x86 and on ARM that decide which instructions may be used."""


def fingerprint(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A short name for the instruction set and model; equal on equal CPUs, after a reboot too."""
    lines = sorted(f"{key}: {' '.join(sorted(set(words)))}" for key, words in _facts(cpuinfo))
    text = "\n".join([platform.machine(), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_x86() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64", "i686"}


def _facts(cpuinfo: Path) -> list[tuple[str, list[str]]]:
    """The telling lines of the first core of each kind: big and little cores differ."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    seen = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in _TELLING:
            seen[key.strip(), value.strip()] = value.split()
    return [(key, words) for (key, _), words in seen.items()]
