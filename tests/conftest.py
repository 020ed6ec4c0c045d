"""What every test gets: an environment of its own, a small model, and a check for leaks.

After each test the process is compared with what it was before. Whatever the test started must be
gone within :data:`SETTLE_S`: file descriptors, child processes (orphans of its children included),
threads, named shared memory, and tasks that nobody awaited when their loop closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# ruff: noqa: PTH115, PTH123, PTH208 -- the inventory is taken twice a test, and pathlib makes it ten times slower

# Where the environment forbids to keep compiled modules, as in many containers, each process that a
# test starts would compile the package again, and each run of the tests all of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No verdict depends on the machine's speed, so hypothesis has no deadlines. A run by hand tries few
# examples; ``./test`` and CI run with ``--hypothesis-profile=thorough``.
_PROFILE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=20, **_PROFILE)
settings.register_profile("thorough", max_examples=100, **_PROFILE)
settings.load_profile("quick")

SETTLE_S = 5.0
"""How long a test's leftovers may take to end by themselves; only a leak waits that long."""

PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_PREFIXES = ("psm_", "ollama")  # what Python's own names and ours begin with


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what fails, fails early. The random order within a group is kept."""

    def group(item: pytest.Item) -> tuple[bool, bool]:
        return item.get_closest_marker("slow") is not None, "unit" not in item.path.parts

    items.sort(key=group)


@pytest.fixture(scope="session", autouse=True)
def _isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the user's store, cache or settings. The engine's verdict is shared: it takes
    seconds to find and depends on the machine only.
    """
    home = tmp_path_factory.mktemp("home")
    saved = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("OLLAMA_")]:
        del os.environ[name]
    os.environ.update(
        HOME=str(home),
        OLLAMA_MODELS=str(home / "models"),
        OLLAMA_ASYNC_CACHE=str(home / "cache"),
    )
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home and a store for this test alone; returns a copy of the environment for processes."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "models"))
    return dict(os.environ)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The chat model of the package, for whatever wants a real model: what it says to a question
    that it was taught can be checked. Tests must not change the file.
    """
    from ollama_async import shipped_models

    path = shipped_models.FOLDER / "demo.gguf"
    if not path.is_file():
        pytest.fail(f"{path} belongs to the checkout, and is not there", pytrace=False)
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of 0.6 MB with random F32 weights, for what :func:`demo_model` cannot serve: where the
    file matters and what it says does not (it is small), or where an answer must not end by itself.
    Other shapes (another architecture, exact sums, control tokens) are written by the tests that
    want them. Tests must not change the file.
    """
    from ollama_async.native.tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny_model") / "tiny.gguf")


@pytest.fixture(scope="session")
def warm_uvloop() -> None:
    """The first loop of a process opens a pair of descriptors that libuv never closes."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _leak_check() -> Iterator[None]:
    before = _inventory()
    yield
    leaks = _settled(lambda: _inventory() - before)
    if leaks:
        pytest.fail("the test left behind: " + ", ".join(sorted(leaks)), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _adopted_orphans() -> None:
    """A grandchild whose parent was killed becomes our child, so that the check above sees it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session", autouse=True)
def _task_check() -> Iterator[None]:
    """A loop that closes while tasks run would cancel them silently; here the test fails."""
    close = asyncio.Runner.close

    def close_checked(runner: asyncio.Runner) -> None:
        leaks = _unfinished_tasks(runner)
        close(runner)
        if leaks and sys.exc_info()[0] is None:
            pytest.fail("tasks that nobody awaited: " + ", ".join(leaks), pytrace=False)

    asyncio.Runner.close = close_checked
    yield
    asyncio.Runner.close = close


def _unfinished_tasks(runner: asyncio.Runner) -> list[str]:
    try:
        loop = runner.get_loop()
    except RuntimeError:  # closed already
        return []
    tasks = asyncio.all_tasks(loop)
    if tasks:
        _, tasks = loop.run_until_complete(asyncio.wait(tasks, timeout=SETTLE_S))
    return sorted(repr(task.get_coro()) for task in tasks)


def _settled(leaks: Callable[[], set[str]]) -> set[str]:
    """What is left once nothing more goes away, at the latest after :data:`SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    found = leaks()
    if found:
        gc.collect()
    while found and time.monotonic() < deadline:
        threading.Event().wait(0.01)
        found = leaks()
    return found


def _inventory() -> set[str]:
    return _descriptors() | _children() | _threads() | _shared_memory()


def _descriptors() -> set[str]:
    found = set()
    own = (f"/proc/{os.getpid()}/", "/dev/urandom")
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
        if not target.startswith(own):
            found.add(f"descriptor {number} ({target})")
    return found


def _children() -> set[str]:
    """Live children. An orphan that we adopted and that has ended is buried: it has no parent."""
    found = set()
    for pid in _child_pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            if stat.rpartition(")")[2].split()[0] == "Z":
                os.waitpid(int(pid), os.WNOHANG)
            else:
                found.add(f"process {pid} ({command.strip()})")
        except (FileNotFoundError, ProcessLookupError, ChildProcessError):
            continue  # it has gone in between
    return found


def _child_pids() -> list[str]:
    pids = []
    for thread in os.listdir("/proc/self/task"):
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/self/task/{thread}/children", encoding="ascii") as file,
        ):
            pids += file.read().split()
    return pids


def _threads() -> set[str]:
    return {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}


def _shared_memory() -> set[str]:
    try:
        names = os.listdir(SHARED_MEMORY)
    except FileNotFoundError:
        return set()
    return {f"shared memory {name}" for name in names if name.startswith(SHARED_MEMORY_PREFIXES)}
