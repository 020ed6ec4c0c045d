"""What the pipe costs: ``python bench/pipe.py [--frames N]`` prints a table.

A real child process floods the parent with ``Deltas`` frames; the parent decodes and counts them on
its event loop. CPU times are each process's own, so that a busy machine changes only the wall time.
Then: round trips of a small message, and how long a spawn blocks the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvloop

from ollama_async.workers import messages
from ollama_async.workers.child.process_setup import attach
from ollama_async.workers.pipe import Channel

TEXT = " word"


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Counter:
    """Counts pieces; done when the child's ``Text`` with its own CPU time has come."""

    def __init__(self) -> None:
        self.pieces = 0
        self.frames = 0
        self.child_cpu_s = asyncio.get_running_loop().create_future()
        self.echoes: asyncio.Queue[int] = asyncio.Queue()

    def received(self, batch: list[messages.ToParent]) -> None:
        for message in batch:
            if isinstance(message, messages.Deltas):
                self.frames += 1
                self.pieces += len(message.items)
            elif isinstance(message, messages.Started):
                self.echoes.put_nowait(message.id)
            elif isinstance(message, messages.Text):
                self.child_cpu_s.set_result(float(message.text))

    def broken(self, reason: str) -> None:
        raise SystemExit(reason)


@contextlib.contextmanager
def child(channel: Channel) -> Iterator[None]:
    argv = [sys.executable, __file__, "--child", *channel.argv(generation=1)]
    with subprocess.Popen(argv, pass_fds=channel.pass_fds) as process:
        channel.spawned()
        try:
            yield
        finally:
            channel.pipe.send(messages.Quit())
            process.wait(10)
            channel.close()


async def flood(frames: int, pieces: int) -> str:
    channel = Channel()
    counter = Counter()
    channel.pipe.open(counter.received, counter.broken)
    with child(channel):
        channel.pipe.send(messages.Cancel(1))
        await counter.echoes.get()  # the child is up
        wall_0, cpu_0 = time.perf_counter(), cpu_s()
        channel.pipe.send(messages.Detokenize(frames, [pieces]))
        child_cpu_s = await counter.child_cpu_s
        wall, cpu = time.perf_counter() - wall_0, cpu_s() - cpu_0
    assert counter.pieces == frames * pieces
    return (
        f"{pieces:>7} {frames:>8} {cpu / frames * 1e6:>12.2f} {cpu / counter.pieces * 1e6:>12.3f}"
        f" {counter.pieces / cpu:>14,.0f} {counter.pieces / wall:>14,.0f}"
        f" {child_cpu_s / frames * 1e6:>12.2f}"
    )


async def trips(count: int) -> str:
    channel = Channel()
    counter = Counter()
    channel.pipe.open(counter.received, counter.broken)
    times = []
    with child(channel):
        for number in range(1, count + 1):
            begin = time.perf_counter()
            channel.pipe.send(messages.Cancel(number))
            await counter.echoes.get()
            times.append((time.perf_counter() - begin) * 1e6)
    cuts = statistics.quantiles(times[10:], n=100)
    return f"round trip of one small message: p50 {cuts[49]:.0f} µs, p99 {cuts[98]:.0f} µs"


def spawns(ballast_mib: int) -> str:
    """The part of a spawn that blocks: Popen with the very arguments that process.py uses."""
    ballast = b"\1" * (ballast_mib << 20)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", ""], stdin=subprocess.DEVNULL, start_new_session=True
        )
        times.append((time.perf_counter() - begin) * 1e3)
        process.wait()
    del ballast
    return (
        f"spawn from a parent of {ballast_mib:>5} MiB blocks for: shortest {min(times):.2f}, median"
        f" {statistics.median(times):.2f}, longest {max(times):.2f} ms"
    )


def run_child(argv: list[str]) -> None:
    pipe = attach(argv).pipe
    while True:
        match pipe.receive(0.5):
            case messages.Cancel(id=number):
                pipe.send([messages.Started(number)])
            case messages.Detokenize(id=frames, tokens=[pieces]):
                step = messages.Deltas([(number + 1, TEXT) for number in range(pieces)])
                begin = cpu_s()
                for _ in range(frames):
                    pipe.send([step])
                pipe.send([messages.Text(0, str(cpu_s() - begin))])
            case messages.Quit():
                return


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50_000)
    frames = parser.parse_args().frames
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    runners: dict[str, Callable[[Coroutine[Any, Any, str]], str]] = {
        "asyncio": asyncio.run,
        "uvloop": uvloop.run,
    }
    for name, run in runners.items():
        print(
            f"\n{name}\npieces/  frames  parent CPU   parent CPU         pieces/        pieces/"
            "    child CPU\n  frame           µs/frame     µs/piece   s parent CPU         s wall"
            "     µs/frame"
        )
        for pieces in (1, 8, 64):
            print(run(flood(frames if pieces < 64 else frames // 4, pieces)))
        print(run(trips(2000)))
    print()
    for ballast_mib in (0, 2048):
        print(spawns(ballast_mib))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2:])
    else:
        main()
