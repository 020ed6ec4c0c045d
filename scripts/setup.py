"""Makes ``.venv`` in the checkout ready: environment, engine, this package with its tools.

Done twice, it does nothing the second time; interrupted, it takes up where it was. Needs no root
and nothing but Python's standard library.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of the folder of this file

from ollama_async.native import build, kernel_build  # noqa: E402  # found through the line above
from ollama_async.native.logged_command import (  # noqa: E402  # as above
    LoggedCommandFailed,
    run_logged,
)

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up.json"
KERNELS_STAMP = VENV / "kernels.txt"
LOG = VENV / "set-up.log"
INSTALL_LIMIT_S = 1800.0
NETWORK_LIMIT_S = 60.0
VENV_BYTES = 700_000_000
BUILD_BYTES = 1_300_000_000
SMALL_PACKAGE = "prometheus_client"  # one of our own dependencies, a small download


class SetUpFailed(Exception):
    """What is missing, and how to get it."""


def main() -> int:
    """Exit status 0: ``.venv`` is ready."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if not is_ready():
            set_up()
        if not was_tried(kernels := kernel_build.sources_digest()):
            build_kernels(kernels)
    except (SetUpFailed, build.BuildFailed, LoggedCommandFailed) as reason:
        say(f"The set-up failed. {reason}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on from here.")
        return 130
    return 0


def is_ready() -> bool:
    """Whether a set-up with the same ingredients has been completed."""
    try:
        return STAMP.read_text() == _ingredients() and PYTHON.exists()
    except (OSError, build.BuildFailed):
        return False


def set_up() -> None:
    began = time.monotonic()
    say("Setting up .venv (the first time takes some minutes; later runs start at once).")
    missing = missing_requirements()
    if missing:
        raise SetUpFailed("Missing:\n" + "\n".join(f"  - {item}" for item in missing))
    make_environment()
    STAMP.unlink(missing_ok=True)
    KERNELS_STAMP.unlink(missing_ok=True)
    check_network()
    cache = build.cache_folder()
    engine = build.build_wheel(cache, str(PYTHON))
    build.install(engine, str(PYTHON), log=LOG)
    _pip(["install", "--editable", f"{ROOT}[dev]"], "Installing the packages", INSTALL_LIMIT_S)
    partial = STAMP.with_suffix(".partial")
    partial.write_text(_ingredients())
    partial.replace(STAMP)
    say(f"Set up in {time.monotonic() - began:.0f} s.")


def was_tried(kernels: str) -> bool:
    """Whether :func:`build_kernels` has run with the same ingredients."""
    return KERNELS_STAMP.exists() and KERNELS_STAMP.read_text() == kernels


def build_kernels(kernels: str) -> None:
    """Build and install our kernels. If that fails, the engine runs without them."""
    line = [str(PYTHON), "-P", "-m", "ollama_async.native.kernel_build"]
    subprocess.run(line, timeout=INSTALL_LIMIT_S, check=False)
    KERNELS_STAMP.write_text(kernels)


def say(text: str) -> None:
    """On the stream where the progress is, so that the lines stay in order."""
    print(text, file=sys.stderr)


def missing_requirements() -> list[str]:
    """Everything that this machine lacks, in words, with the Debian package that has it."""
    missing = []
    if sys.platform != "linux":
        missing.append("Linux (the server uses memfd, eventfd and pidfd)")
    if not importlib.util.find_spec("ensurepip") or not importlib.util.find_spec("venv"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        missing.append(f"venv and ensurepip for {sys.executable}: apt install python{version}-venv")
    try:
        build.find_compilers()
    except build.BuildFailed:
        missing.append("a C++ compiler: apt install g++")
    if not shutil.which("make"):
        missing.append("make: apt install make")
    return missing + missing_space()


def missing_space() -> list[str]:
    """File systems that have too little room, counting twice what is needed twice."""
    needs: dict[int, tuple[Path, int]] = {}
    places = [(ROOT, VENV_BYTES), (Path(tempfile.gettempdir()), BUILD_BYTES)]
    for path, size in places:
        device = path.stat().st_dev
        first, sum_so_far = needs.get(device, (path, 0))
        needs[device] = (first, sum_so_far + size)
    missing = []
    for path, size in needs.values():
        free = shutil.disk_usage(path).free
        if free < size:
            missing.append(
                f"disk space: {path} has {free / 1e9:.1f} GB free, {size / 1e9:.1f} GB are needed"
            )
    return missing


def make_environment() -> None:
    """Make ``.venv``, again if another Python made it or it is broken."""
    probe = "import sys, pip; print(*sys.version_info[:2])"
    if PYTHON.exists():
        found = subprocess.run(
            [PYTHON, "-c", probe], capture_output=True, text=True, timeout=60, check=False
        )
        if found.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return
    with tempfile.TemporaryDirectory() as folder:
        run_logged(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            title="Making .venv",
            log=Path(folder) / "log",
            timeout_s=INSTALL_LIMIT_S,
        )


def check_network() -> None:
    """Ask ``pip`` for a small package, so that a missing network is told before the long part."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--retries", "1", "--timeout", "15", "download", "--no-cache-dir"]
        arguments += ["--no-deps", "--dest", folder, SMALL_PACKAGE]
        try:
            _pip(arguments, "Checking the network", NETWORK_LIMIT_S)
        except LoggedCommandFailed as reason:
            raise SetUpFailed(f"The package index cannot be reached.\n{reason}") from reason


def _pip(arguments: list[str], title: str, timeout_s: float) -> None:
    line = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    run_logged(line, title=title, log=LOG, timeout_s=timeout_s)


def _ingredients() -> str:
    """What the environment is made from, as text; a change means another set-up."""
    return json.dumps(
        {
            "python": sys.version,
            "project": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
            "engine": build.make_recipe(build.find_compilers()).key,
            "place": os.fspath(VENV),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
