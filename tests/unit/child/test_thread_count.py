"""The threads of a step beside other processes: the choice, and what it is made from."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.engines import thread_count
from ollama_async.workers.child.engines.thread_count import (
    PERIOD_S,
    CpuTimes,
    ThreadCount,
    choose_threads,
    read_cpu_times,
    used_s,
)

STAT = """\
cpu  700 300 50 9000 40 3 2 5 0 0
cpu0 400 100 30 4000 20 1 1 2 0 0
cpu1 100 100 10 2000 10 1 0 1 0 0
cpu10 200 100 10 3000 10 1 1 2 7 7
intr 12345 1 2 3
ctxt 99
"""


@pytest.mark.parametrize(
    ("most", "cores", "others", "chosen"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),  # a gateway and its clients
        (2, 2, 1.0, 1),  # one busy process, or another model with one thread
        (2, 2, 1.4, 1),
        (2, 2, 2.0, 1),  # two of them: never none
        (1, 2, 1.0, 1),
        (15, 16, 0.5, 15),  # the core that was left free anyway
        (15, 16, 2.0, 14),
        (15, 16, 8.0, 8),
        (4, 16, 8.0, 4),  # there are enough cores
        (4, 16, 14.0, 2),
    ],
)
def test_a_core_that_is_taken_gets_no_thread(
    most: int, cores: int, others: float, chosen: int
) -> None:
    assert choose_threads(most, most, cores=cores, others=others) == chosen


def test_a_load_near_the_limit_changes_nothing() -> None:
    for current in (1, 2):
        for others in (0.4, 0.5, 0.6):
            assert choose_threads(2, current, cores=2, others=others) == current
    assert choose_threads(2, 1, cores=2, others=0.3) == 2
    assert choose_threads(2, 2, cores=2, others=0.7) == 1


@given(
    most=st.integers(1, 64),
    current=st.integers(1, 64),
    cores=st.integers(1, 64),
    others=st.floats(0, 100),
)
def test_there_is_always_a_thread_and_never_more_than_wanted(
    most: int, current: int, cores: int, others: float
) -> None:
    most = min(most, cores)
    chosen = choose_threads(most, min(current, most), cores=cores, others=others)
    assert 1 <= chosen <= most
    fewer = choose_threads(most, min(current, most), cores=cores, others=others + 1)
    assert fewer <= chosen


def test_only_allowed_cores_count_and_idle_or_nice_time_does_not() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    assert used_s(STAT, {0}, counts_nice=False) == (400 + 30 + 1 + 1 + 2) / ticks
    assert used_s(STAT, {1, 10}, counts_nice=False) == (112 + 214) / ticks
    assert used_s(STAT, {1, 10}, counts_nice=True) == (212 + 314) / ticks
    assert used_s("", {0}, counts_nice=True) == 0


def test_the_kernels_times_can_be_read() -> None:
    times = read_cpu_times(os.sched_getaffinity(0))
    if times is None:  # no /proc here: then all threads compute
        assert ThreadCount(3).update() == 3
    else:
        assert times.all_s > 0
        assert times.own_s > 0


class Machine:
    """Two cores whose use by others is given for each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, used: Iterator[float]) -> None:
        self.now_s = 100.0
        self._all_s = self._own_s = 0.0
        self._used = used
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
        monkeypatch.setattr(thread_count.time, "monotonic", lambda: self.now_s)

    def read(self) -> CpuTimes:
        self._own_s += 1.5
        self._all_s += 1.5 + next(self._used) * PERIOD_S
        return CpuTimes(self.now_s, self._all_s, self._own_s)

    def counts(self, threads: ThreadCount, looks: int) -> list[int]:
        counts = []
        for _ in range(looks):
            self.now_s += PERIOD_S
            counts.append(threads.update())
        return counts


def test_the_count_follows_a_process_that_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, iter([0.1] * 5 + [1.0] * 6 + [0.1] * 6))
    counts = machine.counts(ThreadCount(2, read=machine.read), 16)
    assert counts[:4] == [2] * 4
    assert counts[6:10] == [1] * 4  # within half a second
    assert counts[12:] == [2] * 4


def test_a_short_burst_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, itertools.cycle([0.1, 0.1, 0.1, 1.0]))
    assert set(machine.counts(ThreadCount(2, read=machine.read), 40)) == {2}


def test_the_first_step_knows_what_was_used_during_the_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, iter([0.0, 1.0]))
    assert machine.counts(ThreadCount(2, read=machine.read), 1) == [1]


def test_it_looks_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, iter([0.1, 0.1]))
    threads = ThreadCount(2, read=machine.read)
    machine.now_s += 1
    assert {threads.update() for _ in range(100)} == {2}


def test_the_last_long_look_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause, or a step of seconds, what was seen before it no longer matters."""
    machine = Machine(monkeypatch, iter([0.0, 1.0, 1.0, 0.0]))
    threads = ThreadCount(2, read=machine.read)
    assert machine.counts(threads, 2)[-1] == 1
    machine.now_s += 60
    assert threads.update() == 2


def test_one_wanted_thread_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, iter([]))
    assert machine.counts(ThreadCount(1, read=machine.read), 3) == [1] * 3
