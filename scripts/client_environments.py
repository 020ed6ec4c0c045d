"""Makes the environments of the client tests: one for each folder of ``tests/clients``.

``python scripts/client_environments.py [FOLDER…]`` makes what is missing, several at a time, with
``pip`` and ``npm`` and their caches. Each lies in the project's cache under a key of everything
that it is made from, so it is made once, and a change of a version makes another.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of the folder of this file

from ollama_async.native import build  # noqa: E402  # found through the line above
from ollama_async.native.logged_command import (  # noqa: E402  # as above
    LoggedCommandFailed,
    run_logged,
)

CLIENTS = ROOT / "tests" / "clients"
AT_A_TIME = 2
LIMIT_S = 600.0
_MADE = "made"


class Environment(NamedTuple):
    """``name``: the folder in ``tests/clients`` with the list of packages, ``python/…`` or
    ``node/…``. ``place``: where the packages are. ``command``: what runs a script with them.
    """

    name: str
    place: Path
    command: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        return (self.place / _MADE).exists()


class Missing(Exception):
    """What this machine lacks for an environment."""


def find(name: str, cache: Path) -> Environment:
    """The environment of a folder, made or not. :raises Missing: there is nothing to run it."""
    is_python = name.startswith("python/")
    node = "" if is_python else _node()
    version = sys.version if is_python else _version(node)
    digest = hashlib.sha256(version.encode())
    for path in _lists(name):
        digest.update(path.read_bytes())
    place = cache / "clients" / name / digest.hexdigest()[:16]
    return Environment(name, place, (str(place / "bin" / "python"), "-P") if is_python else (node,))


def names() -> list[str]:
    """The folders of all environments."""
    lists = [*CLIENTS.glob("python/*/requirements.txt"), *CLIENTS.glob("node/*/package.json")]
    return sorted(str(path.parent.relative_to(CLIENTS)) for path in lists)


def main(arguments: list[str]) -> int:
    """Exit status 0: all are there."""
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as threads:
        return int(not all([*threads.map(make, arguments or names())]))


def make(name: str) -> bool:
    """Make one environment unless it is there; says what happened. Another process that makes the
    same one is waited for.
    """
    began = time.monotonic()
    try:
        environment = find(name, build.cache_folder())
        environment.place.mkdir(parents=True, exist_ok=True)
        with _locked(environment.place.with_suffix(".lock")):
            if environment.is_ready:
                return True
            say(f"  {name}: installing")
            _install(environment)
    except (Missing, LoggedCommandFailed, OSError) as reason:
        say(f"No environment {name} to test with. {reason}")
        return False
    say(f"  {name}: ready after {time.monotonic() - began:.0f} s")
    return True


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _install(environment: Environment) -> None:
    """:raises LoggedCommandFailed: pip or npm failed."""
    log = environment.place.with_suffix(".log")
    shutil.rmtree(environment.place)
    environment.place.mkdir()
    commands = _python_commands if environment.name.startswith("python/") else _node_commands
    for words in commands(environment):
        run_logged(words, title=environment.name, log=log, timeout_s=LIMIT_S, stream=io.StringIO())
    (environment.place / _MADE).touch()


def _python_commands(environment: Environment) -> list[list[str]]:
    (requirements,) = _lists(environment.name)
    python = environment.command[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["--python", python, "install", "--no-deps", "--only-binary", ":all:"]
    return [
        [sys.executable, "-m", "venv", "--without-pip", str(environment.place)],
        [*pip, *install, "--requirement", str(requirements)],
        [*pip, "--python", python, "check"],
    ]


def _node_commands(environment: Environment) -> list[list[str]]:
    for path in _lists(environment.name):
        shutil.copy(path, environment.place)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    return [[*npm, "--prefix", str(environment.place)]]


def _lists(name: str) -> list[Path]:
    """The files that say which packages."""
    if name.startswith("python/"):
        return [CLIENTS / name / "requirements.txt"]
    return [CLIENTS / name / "package.json", CLIENTS / name / "package-lock.json"]


def _node() -> str:
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        raise Missing("node and npm are not installed; on Debian: apt install npm")
    return program


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
