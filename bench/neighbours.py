"""A machine that is not ours alone: eight talking clients beside other work.

    python bench/neighbours.py
    LLAMA_SERVER=... python bench/neighbours.py --side own --side llama-server --beside nice

- ``alone``: nothing else runs, one hopes.
- ``nice``, ``normal``: a process that computes without end, at the lowest priority or at our own.
- ``quota``: a cgroup gives the server 1.5 cores (needs root).
- ``twice``: two servers with a model and eight clients each; its ``share`` is the rate of both
  together.

``share`` is the time alone divided by the time beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import peers
import report
import uvloop
import versus
from scenarios import SCENARIOS, Turn

SCENARIO = dataclasses.replace(SCENARIOS["talk-8"], turns=(Turn(60, 48),) * 2)
QUOTA_CORES = 1.5
GOALS = {"nice": 0.7, "normal": 0.45, "twice": 0.8}
"""Least ``share`` of ``own``."""

BESIDE = ("alone", "nice", "normal", "quota", "twice")
_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


@contextlib.contextmanager
def busy_process(niceness: int) -> Iterator[None]:
    code = f"import os; os.nice({niceness})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def quota(server: peers.Running) -> Iterator[None]:
    """Of the server and the processes that it starts from now on.

    :raises OSError: there is no cgroup that this process may limit.
    """
    quota_us = int(QUOTA_CORES * _PERIOD_US)
    is_first = (_CGROUPS / "cpu").is_dir()  # the first version of cgroups
    parent = _CGROUPS / "cpu" if is_first else _CGROUPS
    group = parent / f"bench-{os.getpid()}"
    group.mkdir()
    try:
        if is_first:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(server.process.pid))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (parent / "cgroup.procs").write_text(pid)
        group.rmdir()


def run(side: str, beside: str) -> versus.Row:
    """What the clients saw; of two servers, of the one that took longer.

    :raises OSError: this machine cannot give the server a quota.
    """
    peer = peers.PEERS[side]
    count = 2 if beside == "twice" else 1
    with ExitStack() as stack:
        servers = [
            stack.enter_context(peer.start(SCENARIO.model, SCENARIO.clients, SCENARIO.num_ctx))
            for _ in range(count)
        ]
        runs = [versus.Run(SCENARIO, peer, server) for server in servers]
        if beside == "quota":
            stack.enter_context(quota(servers[0]))
        for run in runs:
            uvloop.run(run.warm_up())
        if beside in {"nice", "normal"}:
            stack.enter_context(busy_process(19 if beside == "nice" else 0))
        rows = uvloop.run(_measure(runs))
        return max(rows, key=lambda row: float(row["total s"]))


async def _measure(runs: list[versus.Run]) -> list[versus.Row]:
    return await asyncio.gather(*(run.measure() for run in runs))


def main() -> None:
    parser = argparse.ArgumentParser(description="Talking clients beside other work.")
    parser.add_argument("--side", choices=peers.PEERS, action="append")
    parser.add_argument("--beside", choices=BESIDE, action="append")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    sides = chosen.side or peers.available()
    rows = []
    for side in sides:
        alone_s = 0.0
        for beside in dict.fromkeys(["alone", *(chosen.beside or BESIDE)]):
            try:
                runs = [run(side, beside) for _ in range(chosen.rounds)]
            except OSError as reason:
                print(f"{beside} cannot be measured here: {reason}", file=sys.stderr)
                continue
            took_s = statistics.median(row["total s"] for row in runs)
            alone_s = alone_s or took_s
            share = alone_s / took_s * (2 if beside == "twice" else 1)
            rows.append(
                {
                    "side": side,
                    "beside": beside,
                    "total s": took_s,
                    "share": share,
                    "goal": GOALS.get(beside, "") if side == "own" else "",
                    "others": statistics.median(row["others"] for row in runs),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    print(f"{report.cpu_name()}\n{report.library_flags()}")
    report.table("eight talking clients beside other work", rows)
    report.save("neighbours", {"library": report.library_flags(), "rows": rows})


if __name__ == "__main__":
    main()
