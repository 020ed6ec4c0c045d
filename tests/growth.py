"""What a computation costs, told by ratios taken in one run.

Seconds say how fast the machine is and who else uses it. The ratio of two sizes says whether each
part of an input is looked at once or once for every other; the ratio to a known computation says
whether a price is bounded.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_FACTOR = 8
_MOST = 3 * _FACTOR
"""A line gives 8 times the time for 8 times the input, a square 64 times."""
_TRIES = 6


def is_linear(prepare: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether what ``prepare(size)`` returns takes about eight times as long for eight times
    ``size``. What ``prepare`` does itself is not counted. The best of some tries is taken, since
    other processes share the caches; ``size`` should take a millisecond at least.
    """
    small, large = prepare(size), prepare(size * _FACTOR)
    return any(_spent_s(large) < _MOST * _spent_s(small) for _ in range(_TRIES))


def _spent_s(compute: Callable[[], object]) -> float:
    was_enabled = gc.isenabled()
    gc.disable()  # a collection looks at all that the other tests hold
    try:
        begun_s = time.thread_time()
        compute()
        return time.thread_time() - begun_s
    finally:
        if was_enabled:
            gc.enable()


def cost(compute: Callable[[], object], most: float) -> float:
    """How many million steps of a plain Python loop ``compute`` takes as long as. It is tried again
    while that is more than ``most``.
    """
    spent = _millions(compute)
    for _ in range(_TRIES):
        if spent > most:
            spent = _millions(compute)
    return spent


def _millions(compute: Callable[[], object]) -> float:
    return _spent_s(compute) / _spent_s(_million_steps)


def _million_steps() -> None:
    for _ in range(1_000_000):
        pass
