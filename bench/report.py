"""How benchmarks name the machine, start a server, print a table and write JSON."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} cores"
    return platform.processor() or "unknown"


def library_flags() -> str:
    import llama_cpp  # noqa: PLC0415  # only benchmarks of the engine need the library

    return llama_cpp.llama_print_system_info().decode().strip()


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print ``rows`` (same keys) with aligned columns."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    print(f"\n{title}")
    for row in [columns, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def save(name: str, document: dict[str, Any]) -> None:
    """Write one run's numbers beside the others; the folder is not committed."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"cpu": cpu_name(), **document}, indent=1))
    print(f"\nwritten: {path}")


def machine_cpu_s() -> float:
    """CPU seconds that all processes have used since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)


@dataclass
class Server:
    """A running server and its process; ``workers()`` are its model processes."""

    port: int
    process: psutil.Process

    def workers(self) -> list[psutil.Process]:
        return self.process.children(recursive=True)

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds so far of the gateway and of its workers together."""
        gateway = self.process.cpu_times()
        workers = [worker.cpu_times() for worker in self.workers()]
        return gateway.user + gateway.system, sum(times.user + times.system for times in workers)


@contextlib.contextmanager
def serving(environment: dict[str, str]) -> Iterator[Server]:
    """Start ``ollama-async serve`` on a free loopback port with a store of its own; stop it."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "ollama_async.cli.main", "serve"]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": f"{folder}/models",
            **environment,
        }
        log = Path(folder) / "server.log"
        with child(command, port, log, environment=settings) as process:
            yield Server(port, process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def child(
    command: list[str],
    port: int,
    log: Path,
    *,
    ready: str = "/",
    environment: dict[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """A server process, from when it answers ``ready`` with 200 until it is stopped."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdout=sink, stderr=sink
        )
    try:
        _wait_until_up(process, port, log, ready)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path, ready: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended at once:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1).close()
            return
        time.sleep(0.05)
    raise SystemExit(f"the server does not answer:\n{log.read_text()}")
