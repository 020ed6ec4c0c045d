"""``ollama-async engine build``: builds the engine for this CPU, with our kernels, and installs it.

The kernels may fail to build; then the engine runs without them.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ollama_async.native import kernel_build
from ollama_async.native.build import (
    REBUILD_COMMAND,
    BuildFailed,
    build_wheel,
    cache_folder,
    install,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=REBUILD_COMMAND,
        description="Build the native engine library for this machine and install it.",
    )
    parser.add_argument("--force", action="store_true", help="build even if a wheel is cached")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    cache = cache_folder()
    try:
        wheel = build_wheel(cache, force=options.force)
        install(wheel, log=cache / "wheels" / "install.log")
        importlib.invalidate_caches()  # the library may be new in this environment
        kernel_build.main(force=options.force)
    except BuildFailed as reason:
        print(f"Error: {reason}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"The engine is installed: {wheel.name} (cached in {wheel.parent}).")  # noqa: T201
    return 0


def _terminate(_number: int, _frame: object) -> NoReturn:
    """Exit with cleanup: kill the compiler's processes, remove temporary files."""
    raise SystemExit(143)
