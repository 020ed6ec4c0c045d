"""A real server as a fixture: the installed command, real processes, a store of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ollama_async import shipped_models
from tests.integration.worker_harness import client, events, make_client

__all__ = ["client", "events", "make_client"]

LONG_WAIT_S = 30.0
"""Deadline of waits that take milliseconds when all is well."""


class RunningServer:
    """One ``ollama-async serve`` and everything it started."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self._log = log
        with log.open("wb") as sink:
            self.process = psutil.Popen(
                [sys.executable, "-P", "-m", "ollama_async.cli.main", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            self.url = self._wait_until_listening()
        except BaseException:  # nobody else knows of it
            self.process.kill()
            self.process.wait()
            raise

    def _wait_until_listening(self) -> str:
        line = self.wait_for_log(r"Listening on ([0-9.]+:[0-9]+)")
        self.environment["OLLAMA_HOST"] = line.group(1)
        return f"http://{line.group(1)}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """Wait until the log has a line that matches."""
        deadline = time.monotonic() + LONG_WAIT_S
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.log):
                return found
            if self.process.poll() is not None:
                break
            _pause()
        raise AssertionError(f"no {pattern!r} in the server's log:\n{self.log}")

    def descriptors(self) -> int:
        """Those that are open, without the memory of prompt caches, which outlives the workers."""
        targets = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                targets.append(link.readlink().name)
        return sum("ollama-async-prompt-cache" not in target for target in targets)

    def workers(self) -> list[psutil.Process]:
        """Processes of models, dead ones left out."""
        found = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "ollama_async.workers.child" in child.cmdline():
                    found.append(child)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """One sample of ``/metrics``; 0 if it is not there."""
        text = httpx.get(f"{self.url}/metrics").text
        for line in text.splitlines():
            if line.startswith("#") or not re.match(rf"{name}(\{{| )", line):
                continue
            if all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rpartition(" ")[2])
        return 0.0

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Poll the server's own interfaces until ``holds``, with a deadline."""
        deadline = time.monotonic() + LONG_WAIT_S
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"never {what}; log:\n{self.log}")
            _pause()

    async def eventually(self, metric: str, value: float) -> None:
        """Wait, without holding the loop, until the metric has the value."""
        await asyncio.get_running_loop().run_in_executor(
            None, self.wait_until, lambda: self.metric(metric) == value, f"saw {metric} {value}"
        )

    def command(
        self, *words: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ollama-async WORDS…`` against this server."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ollama_async.cli.main", *words],
            env=self.environment,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=LONG_WAIT_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, (done.stdout, done.stderr, self.log)
        return done

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit status. Asserts that nothing it started is left."""
        family = self.process.children(recursive=True)
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(LONG_WAIT_S)
        _, alive = psutil.wait_procs(family, timeout=5)
        for orphan in alive:
            orphan.kill()
        assert alive == [], f"left behind: {alive}; log:\n{self.log}"
        return int(status)


def _pause() -> None:
    """Let other processes run between two looks at them; bounded by the caller's deadline."""
    select.select([], [], [], 0.01)


@pytest.fixture
def start_server(tmp_path: Path, engine_cache: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers; each is stopped at the end and must have exited with status 0.

    Their store has no models unless ``offers_shipped``: then a new one gets those of the package.
    """
    with running_servers(tmp_path, engine_cache) as start:
        yield start


@pytest.fixture(scope="module")
def demo_server(
    tmp_path_factory: pytest.TempPathFactory, engine_cache: Path
) -> Iterator[RunningServer]:
    """A server for all tests of a module, with the model ``demo`` loaded."""
    with running_servers(tmp_path_factory.mktemp("demo"), engine_cache) as start:
        server = start(offers_shipped=True, OLLAMA_KEEP_ALIVE="-1")
        loading = {"model": "demo"}
        httpx.post(
            f"{server.url}/api/generate", json=loading, timeout=LONG_WAIT_S
        ).raise_for_status()
        yield server


@contextlib.contextmanager
def running_servers(folder: Path, engine_cache: Path) -> Iterator[Callable[..., RunningServer]]:
    """What :func:`start_server` describes, for fixtures of any scope."""
    servers: list[RunningServer] = []

    def start(
        *, scripts: dict[str, Any] | None = None, offers_shipped: bool = False, **variables: str
    ) -> RunningServer:
        number = len(servers)
        environment = {
            **{name: value for name, value in os.environ.items() if "OLLAMA" not in name},
            "HOME": str(folder),
            "OLLAMA_HOST": "127.0.0.1:0",
            "OLLAMA_MODELS": str(folder / "models"),
            "OLLAMA_ASYNC_CACHE": str(engine_cache),
            **variables,
        }
        if scripts is not None:
            path = folder / f"scripts-{number}.json"
            path.write_text(json.dumps(scripts))
            environment["OLLAMA_ASYNC_SCRIPTS"] = str(path)
            # stories without end are made of one sentence
            environment.setdefault("OLLAMA_ASYNC_REPETITION_LIMIT", "0")
        if not offers_shipped:
            _remember_shipped(Path(environment["OLLAMA_MODELS"]))
        server = RunningServer(environment, folder / f"server-{number}.log")
        servers.append(server)
        return server

    try:
        yield start
    finally:
        for server in servers:
            if server.process.poll() is None:
                assert server.stop() == 0, server.log


def _remember_shipped(store: Path) -> None:
    """Make it a store that was given the shipped models once."""
    marks = store / shipped_models.MARKS
    marks.mkdir(parents=True, exist_ok=True)
    for name in shipped_models.names():
        (marks / name).touch()


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The self-check's verdict is shared by the servers of a run: it takes a second."""
    return tmp_path_factory.mktemp("engine-cache")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on a disk of the size that the test names, as ``mount`` writes sizes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(line, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
