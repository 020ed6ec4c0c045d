"""Cores and memory that this process may use, within its CPU affinity and cgroup limits.

Both cgroup versions are read, with every ancestor of our group, because a parent's limit binds its
children too. Nothing here raises: a value that cannot be read is no limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62
"""Version 1 writes "unlimited" as a number near 2**63."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """``cores`` is at least 1. ``available_bytes``: memory usable now without swapping."""

    cores: int
    available_bytes: int


def survey_host(
    *, cgroup_root: Path = _CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")
) -> Host:
    """Read the current state from a few files, in about a millisecond."""
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
    return Host(cores=max(1, int(cores)), available_bytes=available)


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
