"""Surveys the machine: the cores and memory that this process may use, and the GPUs.

CPU affinity and cgroup limits apply. Both cgroup versions are read, with every ancestor of our
group, because a parent's limit binds its children. A value that cannot be read is no limit.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pynvml

PERIOD_S = 10.0
_CLOSE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62
"""Version 1 writes "unlimited" as a number near 2**63."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """An NVIDIA GPU and its memory at one moment. ``uuid`` is valid in ``CUDA_VISIBLE_DEVICES``."""

    index: int
    uuid: str
    memory_bytes: int
    free_bytes: int


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
    """The machine as it is now. ``visible_devices`` is the operator's ``CUDA_VISIBLE_DEVICES``,
    which NVML ignores. Blocks as :func:`list_gpus`.
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
    """Repeats a survey on a thread of its own. ``latest`` is the last result.

    The constructor blocks for the first survey. The thread is a daemon, so that a hanging GPU
    driver does not delay the server's exit.
    """

    def __init__(self, survey: Callable[[], Machine], *, period_s: float = PERIOD_S) -> None:
        self.latest = survey()
        self._survey = survey
        self._period_s = period_s
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._thread.start()

    def close(self, *, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Stop. Blocks until the current survey has ended, at most ``timeout_s``."""
        self._is_closed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_closed.wait(self._period_s):
            try:
                self.latest = self._survey()
            except Exception:  # the boundary "task supervisor": the next survey may succeed
                log.exception("surveying the machine")


def list_gpus() -> list[Gpu]:
    """The GPUs that can be queried, in NVML's order; none without a driver or the library. Blocks
    for tens of milliseconds if there is a driver.
    """
    try:
        pynvml.nvmlInit()
        try:
            found = [_describe_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
    return [gpu for gpu in found if gpu is not None]


def select_visible(gpus: list[Gpu], selection: str | None) -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` selects: indices or UUID prefixes up to the first
    entry that matches no GPU, as CUDA reads it. None: all.
    """
    if selection is None:
        return gpus
    chosen: list[Gpu] = []
    for word in (part.strip() for part in selection.split(",")):
        found = next((gpu for gpu in gpus if _is_named(gpu, word)), None)
        if found is None:
            break
        chosen.append(found)
    return chosen


def _is_named(gpu: Gpu, word: str) -> bool:
    return word == str(gpu.index) if word.isdigit() else bool(word) and gpu.uuid.startswith(word)


def _describe_gpu(index: int) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Gpu(
            index=index,
            uuid=uuid.decode() if isinstance(uuid, bytes) else uuid,
            memory_bytes=int(memory.total),
            free_bytes=int(memory.free),
        )
    except pynvml.NVMLError:
        return None


def _folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Our group's folder and its ancestors, in the unified hierarchy and in ``controller``'s."""
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
    """Page cache that the group counts as used, but the kernel reclaims on demand."""
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
