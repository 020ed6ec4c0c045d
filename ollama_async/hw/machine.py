"""The machine's state: cores and memory that this process may use, and its GPUs.

Cores and memory are within the CPU affinity and the cgroup limits. Both cgroup versions are read,
with every ancestor of our group, because a parent's limit binds its children too. A value that
cannot be read is no limit.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil

from ollama_async.hw.gpus import Gpu, list_gpus, select_visible

PERIOD_S = 10.0
_CLOSE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62
"""Version 1 writes "unlimited" as a number near 2**63."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """``cores`` is at least 1. ``available_bytes``: memory usable now without swapping."""

    cores: int
    available_bytes: int
    gpus: tuple[Gpu, ...] = ()


def survey_machine(
    visible_devices: str | None = None,
    *,
    cgroup_root: Path = _CGROUP_ROOT,
    membership: Path = Path("/proc/self/cgroup"),
) -> Machine:
    """The machine as it is now. Blocks for tens of milliseconds where a GPU driver answers.

    ``visible_devices`` is the operator's ``CUDA_VISIBLE_DEVICES``, which NVML ignores.
    """
    available = int(psutil.virtual_memory().available)
    for folder in _folders(cgroup_root, membership, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
        available = min(available, max(0, limit - used + _reclaimable_bytes(folder)))
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _folders(cgroup_root, membership, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            cores = min(cores, quota)
    gpus = tuple(select_visible(list_gpus(), visible_devices))
    return Machine(cores=max(1, int(cores)), available_bytes=available, gpus=gpus)


class MachineMonitor:
    """Repeats a survey on a thread of its own. ``latest`` is the last result; it never blocks.

    The constructor blocks for the first survey. The thread is a daemon: a GPU driver that hangs
    makes the numbers stale, and must not delay the server's exit as an executor thread would.
    """

    def __init__(self, survey: Callable[[], Machine], *, period_s: float = PERIOD_S) -> None:
        self.latest = survey()
        self._survey = survey
        self._period_s = period_s
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._thread.start()

    def close(self, *, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Stop. Blocks until a survey under way has ended, at most ``timeout_s``."""
        self._is_closed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_closed.wait(self._period_s):
            try:
                self.latest = self._survey()
            except Exception:  # the boundary "task supervisor": the next survey may succeed
                log.exception("surveying the machine")


def _folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Our group's folder and its ancestors, for the unified hierarchy or ``controller``'s own."""
    for line in _lines(membership):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            base = root
        elif controller in controllers.split(","):
            base = root / controllers
        else:
            continue
        folder = base / path.lstrip("/")
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(base))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(*paths: Path) -> int | None:
    for path in paths:
        words = " ".join(_lines(path)).split()
        if words and words[0].lstrip("-").isdigit():
            return int(words[0])
    return None


def _reclaimable_bytes(folder: Path) -> int:
    """Page cache, which a group counts as used although the kernel reclaims it on demand."""
    stats = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    value = stats.get("inactive_file", stats.get("total_inactive_file", "0"))
    return int(value) if value.isdigit() else 0


def _cpu_quota(folder: Path) -> float | None:
    """The CPU bandwidth limit in cores; None without one."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota = _number(folder / "cpu.cfs_quota_us")
    period = _number(folder / "cpu.cfs_period_us")
    if quota is not None and quota > 0 and period:
        return quota / period
    return None
