"""Builds the native engine library for this machine.

Dependencies cannot have compiler flags, so the library is built here from its source package, with
two corrections (see docs/adr/0001-engine.md): our own header makes GCC's AMX code safe, and
AVX512-FP16 is off. The wheel also gets the library's headers, for our kernels. It is cached under
``OLLAMA_ASYNC_CACHE``, by a key of all its inputs, so only the first build takes minutes.

Standard library only: installation runs this before any package is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ollama_async.native.logged_command import LoggedCommandFailed, run_logged

DISTRIBUTION = "llama-cpp-python"
VERSION = "0.3.36"
"""The release that was measured; pyproject.toml allows a range around it."""

REBUILD_COMMAND = "ollama-async engine build"
"""The command in log lines and errors."""

HEADER = Path(__file__).with_name("gcc_amx.h")
LIBRARY_HEADERS = Path(__file__).with_name("library_headers.cmake")
BUILD_LIMIT_S = 3600.0
INSTALL_LIMIT_S = 300.0
_LOCK_POLL_S = 0.05
_WITHOUT_FP16 = "-mno-avx512fp16"
_COMPILER_FLAGS = re.compile(r"-DCMAKE_(C|CXX)_FLAGS(?::STRING)?=(.*)", re.DOTALL)
_CPU_KEYS = ("model name", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")
"""Keys of /proc/cpuinfo, on x86 and ARM, that determine the usable instructions."""


class Compilers(NamedTuple):
    """Paths of the compilers that CMake will choose."""

    c: str
    cxx: str


class Recipe(NamedTuple):
    """All inputs of a wheel; ``key`` identifies them."""

    requirement: str
    cmake_args: tuple[str, ...]
    key: str


class BuildFailed(Exception):
    """The library could not be built or installed."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """``OLLAMA_ASYNC_CACHE``, as :mod:`ollama_async.core.settings` reads it."""
    text = environ.get("OLLAMA_ASYNC_CACHE", "").strip().strip("\"'")
    return Path(text or "~/.cache/ollama_async").expanduser()


def find_compilers(environ: Mapping[str, str] = os.environ) -> Compilers:
    """The compilers in CMake's order of preference. :raises BuildFailed: none is installed."""
    path = environ.get("PATH")

    def first(*names: str) -> str:
        return next((it for name in names if name and (it := shutil.which(name, path=path))), "")

    c = first(environ.get("CC", ""), "cc", "gcc", "clang")
    cxx = first(environ.get("CXX", ""), "c++", "g++", "clang++")
    if not c or not cxx:
        raise BuildFailed("no C++ compiler found; on Debian: apt install g++")
    return Compilers(c, cxx)


def make_recipe(compilers: Compilers, environ: Mapping[str, str] = os.environ) -> Recipe:
    """The recipe for this machine and environment."""
    arguments = cmake_args(compilers, environ.get("CMAKE_ARGS", ""))
    requirement = f"{DISTRIBUTION}=={VERSION}"
    ingredients = {
        "requirement": requirement,
        # the contents of our files matter, their folder does not
        "arguments": [_without_folder(word) for word in arguments],
        "files": [_digest(HEADER), _digest(LIBRARY_HEADERS)],
        "compilers": [compiler_version(compiler) for compiler in compilers],
        "environ": [environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS")],
        "cpu": cpu_fingerprint(),
    }
    digest = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
    return Recipe(requirement, arguments, f"{VERSION}-{digest[:16]}")


def _without_folder(word: str) -> str:
    for file in (HEADER, LIBRARY_HEADERS):
        word = word.replace(shlex.quote(str(file)), file.name).replace(str(file), file.name)
    return word


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cmake_args(compilers: Compilers, users: str) -> tuple[str, ...]:
    """Arguments for CMake: ours, then the user's ``CMAKE_ARGS``, whose compiler flags are appended
    to ours.
    """
    include = f"-include {shlex.quote(str(HEADER))}"
    flags = {
        "C": [include, *_without_fp16(compilers.c, "c")],
        "CXX": [include, *_without_fp16(compilers.cxx, "c++")],
    }
    others = []
    for word in shlex.split(users):
        compiler_flags = _COMPILER_FLAGS.fullmatch(word)
        if compiler_flags:
            flags[compiler_flags[1]].append(compiler_flags[2])
        else:
            others.append(word)
    ours = [f"-DCMAKE_{language}_FLAGS={' '.join(words)}" for language, words in flags.items()]
    headers = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={LIBRARY_HEADERS}"
    return ("-DGGML_NATIVE=ON", headers, *ours, *others)


def build_wheel(cache: Path, python: str = sys.executable, *, force: bool = False) -> Path:
    """The wheel for this machine, built unless cached. ``python`` needs ``pip``.

    A concurrent build waits for the first one and uses its result.

    :raises BuildFailed: with the end of the build's log.
    """
    compilers = find_compilers()
    recipe = make_recipe(compilers)
    folder = cache / "wheels" / recipe.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            kept = None if force else next(iter(sorted(folder.glob("*.whl"))), None)
            return kept or _build(recipe, compilers, folder, python)
    except OSError as reason:
        raise BuildFailed(f"cannot keep the wheel: {reason}") from reason


def install(wheel: Path, python: str = sys.executable, *, log: Path) -> None:
    """Install the wheel into ``python``'s environment, replacing any other build.

    :raises BuildFailed: ``pip`` failed.
    """
    arguments = ["install", "--no-deps", "--force-reinstall", "--no-index", str(wheel)]
    _pip(python, arguments, title="Installing the engine", log=log, timeout_s=INSTALL_LIMIT_S)


def _build(recipe: Recipe, compilers: Compilers, folder: Path, python: str) -> Path:
    """Compile into a temporary folder, then rename the complete wheel."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
        arguments = ["wheel", "--verbose", "--no-deps", "--no-cache-dir"]
        arguments += ["--no-binary", DISTRIBUTION, "--wheel-dir", partial, recipe.requirement]
        environ = {**os.environ, "CMAKE_ARGS": shlex.join(recipe.cmake_args)}
        environ.update(CC=compilers.c, CXX=compilers.cxx)
        environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
        _pip(
            python,
            arguments,
            title="Compiling the engine (some minutes, once)",
            log=folder / "build.log",
            timeout_s=BUILD_LIMIT_S,
            environ=environ,
        )
        wheels = list(Path(partial).glob("*.whl"))
        if len(wheels) != 1:
            raise BuildFailed(f"pip made {len(wheels)} wheels instead of one; see {folder}")
        return wheels[0].replace(folder / wheels[0].name)


def _pip(
    python: str,
    arguments: Sequence[str],
    *,
    title: str,
    log: Path,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
) -> None:
    line = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        run_logged(line, title=title, log=log, timeout_s=timeout_s, environ=environ)
    except LoggedCommandFailed as reason:
        raise BuildFailed(str(reason)) from reason


def _without_fp16(compiler: str, language: str) -> list[str]:
    """The flag, if the compiler knows it: older ones do not support AVX512-FP16."""
    if not is_x86():
        return []
    line = [compiler, _WITHOUT_FP16, "-x", language, "-fsyntax-only", "/dev/null"]
    known = subprocess.run(line, capture_output=True, timeout=60, check=False)
    return [_WITHOUT_FP16] if known.returncode == 0 else []


def compiler_version(compiler: str) -> str:
    line = [compiler, "--version"]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return shown.stdout.partition("\n")[0]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        if not lock_file(file, BUILD_LIMIT_S, notice="Waiting for another build of the engine."):
            raise BuildFailed(f"another build has locked {path}")
        yield


def lock_file(file: IO[Any], limit_s: float, *, notice: str = "") -> bool:
    """Wait for the lock of an open file; False after ``limit_s``. Closing the file releases it.

    ``notice``: printed if the lock is not free at once.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        else:
            return True
        if notice:
            print(notice, file=sys.stderr)  # noqa: T201
            notice = ""
        time.sleep(_LOCK_POLL_S)


# ------------------------------------------------------------------ the CPU


def cpu_fingerprint(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A short hash of model and instruction set; equal on equal CPUs, also after a reboot."""
    lines = sorted(f"{key}: {' '.join(sorted(set(words)))}" for key, words in _cpu_facts(cpuinfo))
    text = "\n".join([platform.machine(), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_x86() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64", "i686"}


def _cpu_facts(cpuinfo: Path) -> list[tuple[str, list[str]]]:
    """The relevant lines for each kind of core: big and little cores differ."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    seen = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in _CPU_KEYS:
            seen[key.strip(), value.strip()] = value.split()
    return [(key, words) for (key, _), words in seen.items()]
