"""Limits of control groups are found whatever their version and wherever they are set."""

import os
from pathlib import Path

import psutil
import pytest

from ollama_async.hw.host import survey_host


@pytest.fixture
def groups(tmp_path: Path):
    def make(membership: str, files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "self").write_text(membership)
        return survey_host(cgroup_root=tmp_path / "cgroup", membership=tmp_path / "self")

    return make


def test_without_groups_the_machine_itself_counts(groups):
    host = groups("", {})

    assert host.cores == len(os.sched_getaffinity(0))
    assert 0 < host.available_bytes <= psutil.virtual_memory().total


def test_version_2_limits_memory_and_cores(groups):
    host = groups(
        "0::/box/inner\n",
        {
            "box/inner/memory.max": "104857600\n",
            "box/inner/memory.current": "50000000\n",
            "box/inner/memory.stat": "anon 1\ninactive_file 10000000\n",
            "box/inner/cpu.max": "100000 100000\n",
        },
    )

    assert (host.cores, host.available_bytes) == (1, 64857600)


def test_a_limit_on_a_parent_group_binds(groups):
    host = groups(
        "0::/box/inner\n",
        {"box/memory.max": "1000000", "box/inner/memory.max": "max", "box/cpu.max": "50000 100000"},
    )

    assert (host.cores, host.available_bytes) == (1, 1000000)


def test_version_1_limits_are_read_in_their_own_hierarchies(groups):
    host = groups(
        "4:memory:/a\n1:cpu,cpuacct:/a\n",
        {
            "memory/a/memory.limit_in_bytes": "2000000",
            "memory/a/memory.usage_in_bytes": "500000",
            "cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
    )

    assert (host.cores, host.available_bytes) == (1, 1500000)


def test_unlimited_and_unreadable_values_are_no_limit(groups, monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    plain = groups("", {})
    host = groups(
        "4:memory:/a\n0::/b\ngarbage\n",
        {
            "memory/a/memory.limit_in_bytes": str(2**63 - 4096),
            "b/memory.max": "max",
            "b/cpu.max": "max 100000",
            "b/memory.current": "lots",
        },
    )

    assert host == plain
