"""A server of our own for the time of a measurement, with an empty store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0


@contextlib.contextmanager
def server(**variables: str) -> Iterator[str]:
    """Yield its URL. ``variables`` are added to its environment.

    :raises RuntimeError: it does not start in time; the text ends with what it said.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        environ = {**os.environ, **variables, "OLLAMA_HOST": host, "OLLAMA_MODELS": folder}
        command = [str(Path(sys.executable).with_name("ollama-async")), "serve"]
        process = subprocess.Popen(
            command,
            env=environ,
            stdout=log,
            stderr=log,
            process_group=0,  # its workers are killed with it if it does not stop
        )
        try:
            if not _answers(process, f"http://{host}/"):
                log.seek(0)
                raise RuntimeError(f"no server: {log.read().decode(errors='replace')[-2000:]}")
            yield f"http://{host}"
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=1):  # noqa: S310 - the URL is our own
                return True
        except (URLError, OSError):
            time.sleep(0.05)
    return False
