"""The cost of the pipe between gateway and worker, beside sockets that carry the same frames.

    python bench/pipe.py         the ring, a stream and a packet pair of Unix sockets
    python bench/pipe.py --rounds 3 --frames 2000 --loop asyncio

A real child process sends ``Deltas`` frames, as a worker does, and the parent decodes and counts
them on its event loop, as the gateway does. The transports take turns in every round, and ratios
are of one round. CPU times are each process's own, the kernel's work for it included.

- flood: frames as fast as they go, of 1, 8 and 64 deltas. Rates and CPU per frame.
- paced: one frame each millisecond, so that each has to wake the parent. CPU per frame, and the
  time from before the child's encoding until the parent has decoded the message.
- round trip of one small message. How long a spawn blocks the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import report
import uvloop

from ollama_async.core.conversation import Detokenize
from ollama_async.workers import frames, messages
from ollama_async.workers.child.process_setup import attach
from ollama_async.workers.pipe import READ_BYTES, Channel

TEXT = " word"
PACE_S = 0.001
SOCKETS = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET}
TRANSPORTS = ("ring", *SOCKETS)
SIZES = (1, 8, 64)


class ParentEnd(Protocol):
    def open(
        self, received: Callable[[list[messages.ToParent]], None], broken: Callable[[str], None]
    ) -> None: ...

    def send(self, *sent: messages.FromParent) -> None: ...


class ParentSocket:
    """A socket on the loop: like the ring, it reads at most 16 KiB before the loop goes round."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._is_packet = connection.type == socket.SOCK_SEQPACKET
        self._frames = frames.FrameReader[messages.ToParent](
            messages.ToParent,
            limit_bytes=frames.TO_PARENT_LIMIT_BYTES,
            list_limit_bytes=frames.TO_PARENT_LIST_LIMIT_BYTES,
        )

    def open(
        self, received: Callable[[list[messages.ToParent]], None], broken: Callable[[str], None]
    ) -> None:
        self._received = received
        self._broken = broken  # not called: what is sent here is sound
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def send(self, *sent: messages.FromParent) -> None:
        data = frames.encode(sent, limit_bytes=frames.TO_CHILD_LIMIT_BYTES)
        assert self._socket.send(data) == len(data), "only small messages go this way"

    def _read(self) -> None:
        batch = []
        size = 0
        while size < READ_BYTES:
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            size += len(data)
            batch += self._frames.feed(data)
            if not self._is_packet or not data:
                break
        if batch:
            self._received(batch)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class ChildSocket:
    """The child's end, for one thread."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._frames = frames.FrameReader[messages.ToChild](
            messages.ToChild, limit_bytes=frames.TO_CHILD_LIMIT_BYTES
        )
        self._received: deque[messages.ToChild] = deque()

    def receive(self, timeout_s: float) -> messages.ToChild | None:
        if not self._received and select.select([self._socket], [], [], timeout_s)[0]:
            self._received.extend(self._frames.feed(self._socket.recv(READ_BYTES)))
        return self._received.popleft() if self._received else None

    def send(self, sent: Sequence[messages.ToParent]) -> None:
        data = frames.encode(
            sent,
            limit_bytes=frames.TO_PARENT_LIMIT_BYTES,
            list_limit_bytes=frames.TO_PARENT_LIST_LIMIT_BYTES,
        )
        self._socket.sendall(data)


class Counter:
    """Counts what arrives; ``child_cpu_s`` comes last, with the child's ``Failed``."""

    def __init__(self) -> None:
        self.deltas = 0
        self.frames = 0
        self.latencies_us: list[float] = []
        self.child_cpu_s = asyncio.get_running_loop().create_future()
        self.echoes: asyncio.Queue[int] = asyncio.Queue()

    def received(self, batch: list[messages.ToParent]) -> None:
        for message in batch:
            if isinstance(message, messages.Deltas):
                self.frames += 1
                self.deltas += len(message.items)
                text = message.items[0][1]
                if isinstance(text, str) and text != TEXT:
                    self.latencies_us.append((time.monotonic_ns() - int(text)) / 1e3)
            elif isinstance(message, messages.Started):
                self.echoes.put_nowait(message.id)
            elif isinstance(message, messages.Failed):
                self.child_cpu_s.set_result(float(message.message))

    def broken(self, reason: str) -> None:
        raise SystemExit(reason)


@contextlib.contextmanager
def child(transport: str) -> Iterator[tuple[ParentEnd, Counter]]:
    """A child process at the other end."""
    counter = Counter()
    with contextlib.ExitStack() as made:
        end: ParentEnd
        if transport == "ring":
            channel = made.enter_context(contextlib.closing(Channel()))
            end, fds = channel.pipe, channel.pass_fds
            argv = channel.argv(generation=1)
        else:
            ours, theirs = socket.socketpair(socket.AF_UNIX, SOCKETS[transport])
            made.enter_context(theirs)
            end = made.enter_context(contextlib.closing(ParentSocket(ours)))
            fds, argv = (theirs.fileno(),), [str(theirs.fileno())]
        command = [sys.executable, __file__, "--child", transport, *argv]
        process = made.enter_context(subprocess.Popen(command, pass_fds=fds))
        end.open(counter.received, counter.broken)
        yield end, counter
        end.send(messages.Quit())
        process.wait(10)


async def flood(transport: str, count: int, size: int) -> dict[str, float]:
    with child(transport) as (end, counter):
        end.send(messages.Cancel(1))
        await counter.echoes.get()  # the child is up
        wall_0, cpu_0 = time.perf_counter(), time.process_time()
        end.send(messages.Submit(1, Detokenize([count, size])))
        child_cpu_s = await counter.child_cpu_s
        wall, cpu = time.perf_counter() - wall_0, time.process_time() - cpu_0
    assert counter.deltas == count * size
    return {
        "frames/s": count / wall,
        "parent µs/frame": cpu / count * 1e6,
        "child µs/frame": child_cpu_s / count * 1e6,
    }


async def paced(transport: str, count: int) -> dict[str, float]:
    with child(transport) as (end, counter):
        end.send(messages.Cancel(1))
        await counter.echoes.get()
        cpu_0 = time.process_time()
        end.send(messages.Submit(1, Detokenize([count])))
        child_cpu_s = await counter.child_cpu_s
        cpu = time.process_time() - cpu_0
    assert counter.frames == count
    cuts = statistics.quantiles(counter.latencies_us, n=100)
    return {
        "latency p50 µs": cuts[49],
        "latency p99 µs": cuts[98],
        "parent µs/frame": cpu / count * 1e6,
        "child µs/frame": child_cpu_s / count * 1e6,
    }


async def trips(transport: str, count: int) -> dict[str, float]:
    times = []
    with child(transport) as (end, counter):
        for number in range(1, count + 11):
            begin = time.perf_counter()
            end.send(messages.Cancel(number))
            await counter.echoes.get()
            times.append((time.perf_counter() - begin) * 1e6)
    cuts = statistics.quantiles(times[10:], n=100)
    return {"round trip p50 µs": cuts[49], "round trip p99 µs": cuts[98]}


def spawns(ballast_mib: int) -> dict[str, Any]:
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
    row = {"shortest ms": min(times), "median ms": statistics.median(times)}
    return {"parent MiB": ballast_mib, **row, "longest ms": max(times)}


def run_child(transport: str, argv: list[str]) -> None:
    pipe = attach(argv)[0] if transport == "ring" else ChildSocket(int(argv[0]))
    while True:
        match pipe.receive(0.5):
            case messages.Cancel(id=number):
                pipe.send([messages.Started(number)])
            case messages.Submit(task=Detokenize(tokens=[count, size])):
                step = messages.Deltas([(number + 1, TEXT) for number in range(size)])
                begin = time.process_time()
                for _ in range(count):
                    pipe.send([step])
                pipe.send([messages.Failed(1, "", str(time.process_time() - begin))])
            case messages.Submit(task=Detokenize(tokens=[count])):
                begin = time.process_time()
                for _ in range(count):
                    time.sleep(PACE_S)
                    pipe.send([messages.Deltas([(1, str(time.monotonic_ns()))])])
                pipe.send([messages.Failed(1, "", str(time.process_time() - begin))])
            case messages.Quit():
                return
            case _:
                continue


def measure(
    run: Callable[[Any], dict[str, float]],
    work: Callable[[str], Any],
    rounds: int,
) -> list[dict[str, dict[str, float]]]:
    """Per round, each transport's numbers; another transport begins each round."""
    results = []
    for number in range(rounds):
        order = [TRANSPORTS[(number + i) % len(TRANSPORTS)] for i in range(len(TRANSPORTS))]
        results.append({transport: run(work(transport)) for transport in order})
    return results


def show(title: str, results: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The medians over the rounds, and the sockets' ratios to the ring with their ranges."""
    names = list(results[0]["ring"])
    medians, ratios = [], []
    for transport in TRANSPORTS:
        values = {name: [each[transport][name] for each in results] for name in names}
        medians.append(
            {"transport": transport, **{name: statistics.median(values[name]) for name in names}}
        )
        row = {"transport": transport}
        for name in names:
            to_ring = [each[transport][name] / each["ring"][name] for each in results]
            span = f"({min(to_ring):.2f} to {max(to_ring):.2f})"
            row[name.removesuffix(" µs")] = f"{statistics.median(to_ring):.2f} {span}"
        ratios.append(row)
    report.table(title, medians)
    report.table("ratios to the ring, median and range of the rounds", ratios[1:])
    return {"medians": medians, "ratios": ratios[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=50_000, help="of a flood")
    parser.add_argument("--paced", type=int, default=3_000, help="paced frames, and round trips")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    chosen = parser.parse_args()
    run = uvloop.run if chosen.loop == "uvloop" else asyncio.run
    print(f"{report.cpu_name()}, Python {sys.version.split()[0]}, {chosen.loop}")
    tables: dict[str, Any] = {}
    for size in SIZES:
        count = chosen.frames if size < 64 else chosen.frames // 4
        results = measure(run, partial(flood, count=count, size=size), chosen.rounds)
        tables[f"flood {size}"] = show(f"flood, {size} deltas a frame", results)
    results = measure(run, partial(paced, count=chosen.paced), chosen.rounds)
    tables["paced"] = show("paced, one frame a millisecond", results)
    results = measure(run, partial(trips, count=chosen.paced), chosen.rounds)
    tables["round trip"] = show("round trip of one small message", results)
    tables["spawn"] = [spawns(ballast_mib) for ballast_mib in (0, 2048)]
    report.table("a spawn blocks the loop for", tables["spawn"])
    report.save("pipe", {"loop": chosen.loop, "rounds": chosen.rounds, **tables})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], sys.argv[3:])
    else:
        main()
