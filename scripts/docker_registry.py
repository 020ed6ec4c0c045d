"""Unpacks Debian's ``docker-registry``, which the transfer tests run, into the cache.

``python scripts/docker_registry.py`` prints the path of the program. One that is installed is used
as it is. Nothing is installed on the machine: apt keeps its lists and the package in the cache, and
root is not needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of the folder of this file

from ollama_async.native import build  # noqa: E402  # found through the line above

NAME = "docker-registry"
LIMIT_S = 300.0


def program() -> Path | None:
    """The installed program, else the unpacked one; None: there is neither."""
    found = shutil.which(NAME) or shutil.which(NAME, path=str(folder() / "usr" / "bin"))
    return Path(found) if found else None


def folder() -> Path:
    """Where the package is unpacked."""
    return build.cache_folder() / NAME


def main() -> int:
    """Exit status 0: the program is there."""
    found = program()
    if found is None:
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", "") or error
            print(f"No {NAME} to test with. {reason}", file=sys.stderr)
            return 1
        found = program()
    print(found)
    return 0


def fetch() -> None:
    """Download the package and unpack it. :raises SubprocessError: apt or dpkg fails."""
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        place = Path(scratch)
        for name in ("lists/partial", "cache/archives/partial", "unpacked"):
            (place / name).mkdir(parents=True)
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={place / 'lists'}"]
        apt += ["-o", f"Dir::Cache={place / 'cache'}", "-o", "APT::Sandbox::User="]
        _run([*apt, "update"], place)
        _run([*apt, "download", NAME], place)
        (package,) = place.glob("*.deb")
        _run(["dpkg", "-x", str(package), str(place / "unpacked")], place)
        shutil.rmtree(target, ignore_errors=True)
        (place / "unpacked").rename(target)


def _run(words: list[str], place: Path) -> None:
    environ = os.environ | {"LC_ALL": "C"}
    subprocess.run(
        words, cwd=place, env=environ, check=True, capture_output=True, text=True, timeout=LIMIT_S
    )


if __name__ == "__main__":
    sys.exit(main())
