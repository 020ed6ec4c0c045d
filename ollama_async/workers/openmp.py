"""How the threads of the library wait for each other: spinning for some time, then asleep.

A thread that sleeps for a moment loses its core to any process that wants it, even to one of the
lowest priority, and gets it back milliseconds later. With a long spin that does not happen: beside
a process with ``nice -n 19``, 34 steps of 34 are left, and with a short one 20 to 29. But a long
spin is ruinous if another process with our own priority has one of the cores: 1 step of 34. Then
the worker uses fewer threads (``child/engines/thread_count.py``), if the kernel tells what others
use. Some containers have a ``/proc/stat`` of their own, which does not; there the spin is short.
"""

from __future__ import annotations

from pathlib import Path

LONG_SPIN = 300_000
"""About five milliseconds, and the default of GCC's OpenMP."""

SHORT_SPIN = 1000

_PROC = Path("/proc")


def openmp_environ(proc: Path = _PROC) -> dict[str, str]:
    """For a process that runs the library; GCC's OpenMP reads it when it is loaded."""
    spin = LONG_SPIN if _shows_other_processes(proc) else SHORT_SPIN
    return {"GOMP_SPINCOUNT": str(spin)}


def _shows_other_processes(proc: Path) -> bool:
    """Whether ``/proc/stat`` is the kernel's own, and counts something."""
    try:
        mounts = (proc / "self/mountinfo").read_text()
        name, *ticks = (proc / "stat").read_text().partition("\n")[0].split()
        is_counted = name == "cpu" and any(int(value) for value in ticks)
    except (OSError, ValueError):
        return False
    is_replaced = any(line.split()[4:5] == ["/proc/stat"] for line in mounts.splitlines())
    return is_counted and not is_replaced
