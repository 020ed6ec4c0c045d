"""The command as a process: signals, a terminal, a reader that goes away."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

DEADLINE_S = 20
COMMAND = (sys.executable, "-m", "ollama_async.cli.main")
TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
RUN_MAIN = "import sys; from ollama_async.cli.main import main; sys.exit(main())"
AT_TERMINAL = (sys.executable, "-c", f"{TAKE_TERMINAL}; {RUN_MAIN}")


class OneAnswer:
    """A server that gives every request the same stream, which does not end before the client
    hangs up.
    """

    def __init__(self, objects):
        self._lines = [json.dumps(each).encode() + b"\n" for each in objects]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(DEADLINE_S)
                    self._answer(connection)

    def _answer(self, connection):
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n")).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = stream.read(int(length or 0))
            if head.startswith(b"head"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            if b'"stream":false' in body:
                connection.sendall(b'{"done":true}')
                return
            if head.startswith(b"post /api/show"):
                connection.sendall(b"{}")
                return
            with contextlib.suppress(OSError):
                connection.sendall(b"".join(self._lines))
                stream.read()
            self.hung_up.set()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE_S)


@pytest.fixture
def server():
    words = ("the quick brown fox jumps over the lazy dog and runs away " * 3).split()
    one = OneAnswer(
        [{"response": f"{word} ", "message": {"content": f"{word} "}} for word in words]
    )
    yield one
    one.close()


def start(server, *words, command=COMMAND, **options):
    return subprocess.Popen(
        [*command, *words],
        env={**os.environ, "OLLAMA_HOST": server.host, "COLUMNS": "40"},
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | options,
    )


def test_ctrl_c_stops_an_answer_quietly(server):
    with start(server, "run", "m", "hi") as process:
        assert process.stdout.read(9) == b"the quick"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (130, b"")
    assert b"Traceback" not in out
    assert server.hung_up.wait(DEADLINE_S)


def test_a_reader_that_goes_away_ends_the_command_quietly(server):
    reader, writer = os.pipe()
    os.close(reader)
    with start(server, "run", "m", "hi", stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (141, b"")
    assert server.hung_up.wait(DEADLINE_S)


def test_the_command_line_does_not_load_the_server():
    heavy = "aiohttp", "numpy", "llama_cpp", "asyncio", "jinja2", "prometheus_client"
    code = f"import sys, ollama_async.cli.main; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=DEADLINE_S, check=True
    )
    assert run.stdout == b"[]\n"


class Terminal:
    """A person at a pseudo-terminal, 40 columns wide."""

    def __init__(self, server):
        self._near, far = pty.openpty()
        self.process = start(
            server, "run", "m", command=AT_TERMINAL,
            stdin=far, stdout=far, stderr=far, start_new_session=True,
        )  # fmt: skip
        os.close(far)

    def types(self, data):
        os.write(self._near, data)

    def shows(self, wanted):
        """Everything up to ``wanted``."""
        seen = b""
        deadline = time.monotonic() + DEADLINE_S
        while wanted not in seen and time.monotonic() < deadline:
            if select.select([self._near], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # EIO: the other side is closed
                    seen += os.read(self._near, 4096)
        assert wanted in seen
        return seen

    def close(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._near)


@pytest.fixture
def terminal(server):
    one = Terminal(server)
    yield one
    one.close()


def test_a_conversation_wraps_words_and_ends_as_people_expect(terminal, server):
    terminal.shows(b">>> ")
    terminal.types(b"hi\n")
    answer = terminal.shows(b"runs away the")
    assert b"\x1b[K\r\n" in answer
    terminal.types(b"\x03")
    terminal.shows(b">>> ")
    assert server.hung_up.wait(DEADLINE_S)
    terminal.types(b"/bye\n")
    assert terminal.process.wait(DEADLINE_S) == 0
