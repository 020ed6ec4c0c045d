"""How many threads compute a step, by what other processes leave of the cores.

The library's threads wait for each other many hundred times in a step. One whose core somebody else
uses makes all of them wait, and on two cores both end up on the free one and take turns there: two
threads beside a busy process did 19 steps where one did 28. So a core that is taken is left alone.

Processes with a lower priority (``nice``) do not count: beside one, all threads are still faster.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

PERIOD_S = 0.25
"""Between two looks. The kernel counts in hundredths of a second."""

_MARGIN = 0.25
_STAT = Path("/proc/stat")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _NICE, _IDLE, _IOWAIT = 0, 1, 3, 4
_COUNTED = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user


class CpuTimes(NamedTuple):
    """Seconds: a clock, what all processes used of the cores, and what this one used."""

    now_s: float
    all_s: float
    own_s: float


def choose_threads(most: int, current: int, *, cores: int, others: float) -> int:
    """The threads for the next steps, at least 1.

    ``most`` are wanted, ``current`` compute now. ``others``: how many of the ``cores`` other
    processes use.

    A thread less costs a share of 1 / ``cores``; sharing a core costs up to the share of the time
    in which it is taken. In between, ``current`` stays.
    """

    def left(tolerated: float) -> int:
        taken = max(0, math.ceil(others - tolerated / cores))
        return max(1, min(most, cores - taken))

    return min(max(current, left(1 - _MARGIN)), left(1 + _MARGIN))


class ThreadCount:
    """How many threads the next step should have, at most ``most``. Step thread only.

    Make it before a model is loaded, so that the first step knows already.
    """

    def __init__(self, most: int, *, read: Callable[[], CpuTimes | None] | None = None) -> None:
        cores = os.sched_getaffinity(0)
        self._count = self._most = most
        self._cores = len(cores)
        self._read = read or (lambda: read_cpu_times(cores))
        self._last = self._read() if most > 1 else None
        self._others: float | None = None
        self._due_s = -math.inf

    def update(self) -> int:
        """Looks again if that is due. Call it before every step."""
        if self._last is not None and time.monotonic() >= self._due_s:
            self._look(self._last)
            self._due_s = time.monotonic() + PERIOD_S
        return self._count

    def _look(self, last: CpuTimes) -> None:
        self._last = times = self._read()
        if times is None or times.now_s <= last.now_s:
            return
        passed_s = times.now_s - last.now_s
        used = (times.all_s - last.all_s - (times.own_s - last.own_s)) / passed_s
        used = max(0.0, used)
        if self._others is None:
            self._others = used
        weight = 1 - 0.5 ** (passed_s / PERIOD_S)
        self._others += weight * (used - self._others)
        self._count = choose_threads(
            self._most, self._count, cores=self._cores, others=self._others
        )


def read_cpu_times(cores: Iterable[int]) -> CpuTimes | None:
    """Now; None if the kernel does not tell."""
    try:
        text = _STAT.read_text()
    except OSError:
        return None
    is_nice = os.getpriority(os.PRIO_PROCESS, 0) > 0  # then those with low priority are its equals
    all_s = used_s(text, cores, counts_nice=is_nice)
    return CpuTimes(time.monotonic(), all_s, time.process_time())


def used_s(stat: str, cores: Iterable[int], *, counts_nice: bool) -> float:
    """CPU seconds since the start of the machine on these ``cores``, from the text of
    ``/proc/stat``. What a hypervisor gave to others counts as used.
    """
    names = {f"cpu{core}" for core in cores}
    left_out = {_IDLE, _IOWAIT} if counts_nice else {_IDLE, _IOWAIT, _NICE}
    ticks = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if name in names:
            counted = enumerate(columns[:_COUNTED])
            ticks += sum(int(value) for column, value in counted if column not in left_out)
        elif not name.startswith("cpu"):
            break
    return ticks / _TICKS_PER_S
