"""Runs many commands at once: ``python -P -m ollama_async.native.parallel_commands``.

Reads from a file, its argument, a JSON list of commands, each a list of words. Prints their output
as each ends, after a counter as ninja's, ``[3/12] LAST WORD``. Runs as many at a time as there are
usable cores. Ends with the status of the first that fails; then no more are begun.

Standard library only, as all that installation uses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path


def main() -> int:
    """See the module."""
    commands: list[list[str]] = json.loads(Path(sys.argv[1]).read_bytes())
    ended = 0

    def run(command: list[str]) -> None:
        nonlocal ended
        found = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        ended += 1
        counter = f"[{ended}/{len(commands)}] {command[-1]}\n".encode()
        os.write(1, counter + found.stdout)
        found.check_returncode()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = [pool.submit(run, command) for command in commands]
        done, others = wait(runs, return_when=FIRST_EXCEPTION)
        for other in others:
            other.cancel()
    failures = [each.exception() for each in done if each.exception()]
    for failure in failures:
        if isinstance(failure, subprocess.CalledProcessError):
            return failure.returncode or 1
        print(failure)  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
