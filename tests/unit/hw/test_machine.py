"""The host's limits, whatever cgroup version sets them, and the monitor that repeats surveys."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from ollama_async.hw.machine import Machine, MachineMonitor, survey_machine

DEADLINE_S = 10.0


def machine(cores: int) -> Machine:
    return Machine(cores=cores, available_bytes=1 << 29)


class Surveys:
    """Returns one result after the other, then the last one repeatedly; raises exceptions."""

    def __init__(self, *results: Machine | Exception) -> None:
        self.results = list(results)
        self.is_last = threading.Event()
        self.lasts = 0

    def __call__(self) -> Machine:
        if len(self.results) == 1:
            self.lasts += 1
            if self.lasts == 2:  # the first of them has been stored
                self.is_last.set()
        result = self.results[0] if len(self.results) == 1 else self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_the_first_survey_is_available_at_once():
    monitor = MachineMonitor(Surveys(machine(1)))
    assert monitor.latest == machine(1)
    monitor.close()


def test_a_first_survey_that_fails_raises():
    with pytest.raises(OSError, match="too many"):
        MachineMonitor(Surveys(OSError("too many open files")))


def test_surveys_continue_after_one_fails(caplog):
    surveys = Surveys(machine(1), OSError("too many open files"), machine(2))
    monitor = MachineMonitor(surveys, period_s=0.001)
    assert surveys.is_last.wait(DEADLINE_S)
    monitor.close()
    assert monitor.latest == machine(2)
    assert "too many open files" in caplog.text


def test_a_survey_that_hangs_does_not_delay_close():
    began, may_end = threading.Event(), threading.Event()

    def survey() -> Machine:
        if threading.current_thread() is not threading.main_thread():
            began.set()
            may_end.wait()
        return machine(1)

    monitor = MachineMonitor(survey, period_s=0.001)
    assert began.wait(DEADLINE_S)
    monitor.close(timeout_s=0.01)
    assert not may_end.is_set()
    may_end.set()


@pytest.fixture
def groups(tmp_path: Path):
    def make(membership: str, files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "self").write_text(membership)
        return survey_machine(cgroup_root=tmp_path / "cgroup", membership=tmp_path / "self")

    return make


def test_without_groups_the_machine_itself_counts(groups):
    machine = groups("", {})

    assert machine.cores == len(os.sched_getaffinity(0))
    assert 0 < machine.available_bytes <= psutil.virtual_memory().total


def test_version_2_limits_memory_and_cores(groups):
    machine = groups(
        "0::/box/inner\n",
        {
            "box/inner/memory.max": "104857600\n",
            "box/inner/memory.current": "50000000\n",
            "box/inner/memory.stat": "anon 1\ninactive_file 10000000\n",
            "box/inner/cpu.max": "100000 100000\n",
        },
    )

    assert (machine.cores, machine.available_bytes) == (1, 64857600)


def test_a_limit_on_a_parent_group_binds(groups):
    machine = groups(
        "0::/box/inner\n",
        {"box/memory.max": "1000000", "box/inner/memory.max": "max", "box/cpu.max": "50000 100000"},
    )

    assert (machine.cores, machine.available_bytes) == (1, 1000000)


def test_version_1_limits_are_read_in_their_own_hierarchies(groups):
    machine = groups(
        "4:memory:/a\n1:cpu,cpuacct:/a\n",
        {
            "memory/a/memory.limit_in_bytes": "2000000",
            "memory/a/memory.usage_in_bytes": "500000",
            "cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
    )

    assert (machine.cores, machine.available_bytes) == (1, 1500000)


def test_unlimited_and_unreadable_values_are_no_limit(groups, monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    plain = groups("", {})
    machine = groups(
        "4:memory:/a\n0::/b\ngarbage\n",
        {
            "memory/a/memory.limit_in_bytes": str(2**63 - 4096),
            "b/memory.max": "max",
            "b/cpu.max": "max 100000",
            "b/memory.current": "lots",
        },
    )

    assert (machine.cores, machine.available_bytes) == (plain.cores, plain.available_bytes)
