"""Keeps each of a step's threads on a core of its own while they use all cores.

Otherwise the kernel may leave two of them on one core for seconds, beside a process of the lowest
priority on the other: it sees two threads that run now and then. They wait for each other, so they
run one after the other. With fewer threads than cores, the kernel chooses: another process of ours
has to find cores, too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TASKS = Path("/proc/self/task")


def spread(count: int, cores: Iterable[int]) -> list[set[int]]:
    """The cores on which each of ``count`` threads may run."""
    allowed = sorted(cores)
    if 1 < count <= len(allowed) <= count + 1:  # one may be left for the gateway
        return [{core} for core in allowed[:count]]
    return [set(allowed)] * count


class ThreadPlacement:
    """Of the threads that compute for this one, which is the first of them. The others are started
    while it loads a model or computes, and stay. Make it before that.
    """

    def __init__(self) -> None:
        self._cores = os.sched_getaffinity(0)
        self._strangers = _tasks()
        self._helpers: list[int] = []
        self._count = 0

    def loaded(self) -> None:
        """What was started since this was made, computes."""
        self._helpers = sorted(_tasks() - self._strangers)

    def compute(self, count: int, evaluate: Callable[[], T]) -> T:
        """``evaluate()``, which uses ``count`` threads. They are placed after their first time."""
        if count == self._count:
            return evaluate()
        before = _tasks()
        result = evaluate()
        after = _tasks()
        self._helpers = [task for task in self._helpers if task in after]
        self._helpers += sorted(after - before)
        self._place(count)
        self._count = count
        return result

    def _place(self, count: int) -> None:
        tasks = [threading.get_native_id(), *self._helpers]
        # if the numbers differ, threads of another kind were started at the same time, or some rest
        is_whole = len(tasks) == count
        places = spread(count, self._cores) if is_whole else [self._cores] * len(tasks)
        for task, cores in zip(tasks, places, strict=True):
            with contextlib.suppress(OSError):  # it has ended, or the kernel refuses
                os.sched_setaffinity(task, cores)


def _tasks() -> set[int]:
    """The threads of this process; none without ``/proc``."""
    try:
        return {int(task.name) for task in _TASKS.iterdir()}
    except OSError:
        return set()
