"""Makes the environments of the client tests: one for each folder of ``tests/clients``.

``python scripts/client_environments.py [FOLDER…]`` makes what is missing, several at a time, with
``pip``, ``npm`` and ``go``. Each lies in the project's cache under a key of everything that it is
made from, so it is made once, and a change of a version makes another. No code of the packages runs
before the tests do.
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
from collections.abc import Callable, Iterator
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


class Language(NamedTuple):
    """``lists``: the files that say which packages. ``program`` finds what runs a script, and its
    version. ``install`` gives the commands that fill a place, ``run`` the one before a script.
    """

    lists: tuple[str, ...]
    program: Callable[[], tuple[str, str]]
    install: Callable[[Path, Path], list[list[str]]]
    run: Callable[[str, Path], list[str]]


class Environment(NamedTuple):
    """``name``: the folder in ``tests/clients``, ``LANGUAGE/CLIENT``. ``place``: where its packages
    are. ``command``: what runs a script with them.
    """

    name: str
    place: Path
    command: list[str]

    @property
    def is_ready(self) -> bool:
        return (self.place / _MADE).exists()


class Missing(Exception):
    """What this machine lacks for an environment."""


def find(name: str, cache: Path) -> Environment:
    """The environment of a folder, made or not. :raises Missing: there is nothing to run it."""
    language = _language(name)
    program, version = language.program()
    digest = hashlib.sha256(version.encode())
    for file in language.lists:
        digest.update((CLIENTS / name / file).read_bytes())
    place = cache / "clients" / name / digest.hexdigest()[:16]
    return Environment(name, place, language.run(program, place))


def names() -> list[str]:
    """The folders of all environments."""
    return sorted(
        str(path.parent.relative_to(CLIENTS))
        for folder, language in LANGUAGES.items()
        for path in CLIENTS.glob(f"{folder}/*/{language.lists[0]}")
    )


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
    """:raises LoggedCommandFailed: the installer failed."""
    place, log = environment.place, environment.place.with_suffix(".log")
    shutil.rmtree(place)
    place.mkdir()
    for words in _language(environment.name).install(CLIENTS / environment.name, place):
        run_logged(words, title=environment.name, log=log, timeout_s=LIMIT_S, stream=io.StringIO())
    (place / _MADE).touch()


def _language(name: str) -> Language:
    return LANGUAGES[name.partition("/")[0]]


def _find_python() -> tuple[str, str]:
    return sys.executable, sys.version


def _install_python(folder: Path, place: Path) -> list[list[str]]:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    pip += ["--python", str(place / "bin" / "python")]
    exactly = ["--no-deps", "--only-binary", ":all:", "-r", f"{folder}/requirements.txt"]
    return [
        [sys.executable, "-m", "venv", "--without-pip", str(place)],
        [*pip, "install", *exactly],
        [*pip, "check"],
    ]


def _run_python(_program: str, place: Path) -> list[str]:
    return [str(place / "bin" / "python"), "-P"]


def _find_node() -> tuple[str, str]:
    if shutil.which("npm") is None:
        raise Missing("npm is not installed; on Debian: apt install npm")
    return _find("node", "--version")


def _install_node(folder: Path, place: Path) -> list[list[str]]:
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    return [
        ["cp", f"{folder}/package.json", f"{folder}/package-lock.json", str(place)],
        [*npm, "--prefix", str(place)],
    ]


def _find_go() -> tuple[str, str]:
    return _find("go", "version")


def _install_go(folder: Path, place: Path) -> list[list[str]]:
    flags = "GOFLAGS=-modcacherw"  # or the folder could not be removed
    go = [*_go_variables(place), flags, "go", "-C", str(folder)]
    compile_imports = ["list", "-e", "-export", "-deps", "."]  # which takes a minute
    return [[*go, "mod", "download"], [*go, *compile_imports]]


def _run_go(program: str, place: Path) -> list[str]:
    return [*_go_variables(place), "GOPROXY=off", program, "run", "checks.go"]


def _go_variables(place: Path) -> list[str]:
    return ["env", f"GOMODCACHE={place}/packages", f"GOCACHE={place}/builds", "GOTOOLCHAIN=local"]


def _find(name: str, flag: str) -> tuple[str, str]:
    program = shutil.which(name)
    if program is None:
        raise Missing(f"{name} is not installed")
    done = subprocess.run([program, flag], capture_output=True, text=True, check=True)
    return program, done.stdout


LANGUAGES = {
    "python": Language(("requirements.txt",), _find_python, _install_python, _run_python),
    "node": Language(
        ("package.json", "package-lock.json"), _find_node, _install_node, lambda node, _: [node]
    ),
    "go": Language(("go.mod", "go.sum"), _find_go, _install_go, _run_go),
}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
