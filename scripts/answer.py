"""The main job from end to end: start a server, let it answer one prompt, stop it.

Everything goes through the same two commands that a user types: ``ollama-async serve`` and
``ollama-async run``. The store is temporary; nothing of the user's is touched. Being new, it holds
the models of the package, one of which answers if no file is given.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

DEMO = "demo", "Why is the sky blue?"
PROMPT_FOR_FILES = "Once upon a time"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
PROGRAM = str(Path(sys.executable).with_name("ollama-async"))


def main() -> int:
    words = sys.argv[1:]
    if words and not Path(words[0]).is_file():
        print(f"There is no file {words[0]}.", file=sys.stderr)
        return 2
    model, prompt = _question(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ollama_async-") as folder:
        environ = {
            **os.environ,
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": str(Path(folder) / "models"),
        }
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [PROGRAM, "serve"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # Ctrl-C is for the answer; the server is stopped below
            )
        try:
            return _answer(server, port, model, prompt, environ)
        except RuntimeError as reason:
            print(f"{reason}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            _stop(server)


def _question(words: list[str]) -> tuple[str, str]:
    """The model and the prompt that the command line means."""
    if not words:
        return DEMO
    return words[0], " ".join(words[1:]) or PROMPT_FOR_FILES


def _answer(
    server: subprocess.Popen[bytes], port: int, model: str, prompt: str, environ: Mapping[str, str]
) -> int:
    _wait_until_ready(server, port)
    print(f"The server runs on 127.0.0.1:{port}; the prompt: {prompt}", file=sys.stderr)
    return subprocess.run([PROGRAM, "run", model, prompt], env=environ, check=False).returncode


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """:raises RuntimeError: the server ended, or says nothing for too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"The server ended with status {server.returncode}:")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            time.sleep(0.05)  # it does not listen yet
        finally:
            connection.close()
    raise RuntimeError(f"The server did not answer within {START_LIMIT_S:.0f} s:")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
