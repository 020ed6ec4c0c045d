"""How long threads spin depends on whether the kernel tells what other processes use."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_async.workers.openmp import LONG_SPIN, SHORT_SPIN, openmp_environ

STAT = "cpu  700 300 50 9000 40 3 2 5 0 0\ncpu0 700 300 50 9000 40 3 2 5 0 0\n"
MOUNTS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
REPLACED = MOUNTS + "90 22 0:50 /proc/stat /proc/stat rw,nosuid - fuse.lxcfs lxcfs rw\n"


@pytest.mark.parametrize(
    ("mounts", "stat", "spin"),
    [
        (MOUNTS, STAT, LONG_SPIN),
        (REPLACED, STAT, SHORT_SPIN),  # a container's own: others are not in it
        (MOUNTS, "cpu  0 0 0 0 0 0 0 0 0 0\n", SHORT_SPIN),  # a sandbox that counts nothing
        (MOUNTS, "", SHORT_SPIN),
        (MOUNTS, "cpu  what\n", SHORT_SPIN),
        (None, STAT, SHORT_SPIN),
        (MOUNTS, None, SHORT_SPIN),
    ],
)
def test_the_spin_is_long_only_if_others_can_be_seen(
    tmp_path: Path, mounts: str | None, stat: str | None, spin: int
) -> None:
    (tmp_path / "self").mkdir()
    for name, text in (("self/mountinfo", mounts), ("stat", stat)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert openmp_environ(tmp_path) == {"GOMP_SPINCOUNT": str(spin)}
