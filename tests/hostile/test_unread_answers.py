"""Clients that ask for much and read little of it: what their answers hold is bounded."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer

pytestmark = pytest.mark.slow

MIB = 1 << 20
HEAD = "HTTP/1.1\r\nHost: localhost\r\n"


def post(path: str, fields: dict) -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} {HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def connected(server: RunningServer, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A client whose socket takes as little as the kernel allows."""
    host, port = server.environment["OLLAMA_HOST"].split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LONG_WAIT_S)
        client.bind((address, 0))
        client.connect((host, int(port)))
        yield client


def status(client: socket.socket) -> int:
    return int(client.recv(12).split()[1])


def resident_mib(server: RunningServer) -> int:
    return server.process.memory_info().rss // MIB


@pytest.fixture
def licensed(start_server) -> Callable[[int], RunningServer]:
    """Starts a server with a model ``m`` of so many licences of 1 MiB."""

    def start(licenses: int) -> RunningServer:
        server = start_server(offers_shipped=True)
        texts = [(f"{number:07d} licence " * MIB)[:MIB] for number in range(licenses)]
        asked = {"model": "m", "from": "demo", "license": texts, "stream": False}
        httpx.post(f"{server.url}/api/create", json=asked, timeout=LONG_WAIT_S).raise_for_status()
        return server

    return start


def test_long_answers_that_nobody_reads_have_a_limit(licensed):
    server = licensed(45)
    before_mib = resident_mib(server)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(16)]
        for client in clients:
            client.sendall(post("/api/show", {"model": "m"}))
        answers = [status(client) for client in clients]
        assert answers.count(200) == 1
        assert answers.count(503) == 15
        assert resident_mib(server) - before_mib < 700

        other = httpx.get(f"{server.url}/api/tags", timeout=LONG_WAIT_S)
        assert other.status_code == 200
        with connected(server, "127.0.0.2") as neighbour:
            neighbour.sendall(post("/api/show", {"model": "m"}))
            assert status(neighbour) == 200
    server.wait_until(lambda: shown(server) == 200, "let go of them")


def shown(server: RunningServer) -> int:
    answer = httpx.post(f"{server.url}/api/show", json={"model": "m"}, timeout=LONG_WAIT_S)
    return answer.status_code


def test_an_answer_that_runs_ahead_of_its_reader_ends(start_server):
    page = "x" * 4096
    server = start_server(scripts={"m": {"tokens": [page], "repeat": True}})
    before_mib = resident_mib(server)
    with connected(server) as client:
        client.sendall(post("/api/generate", {"model": "m", "prompt": "x"}))
        assert status(client) == 200
        server.wait_until(
            lambda: server.metric("ollama_requests_cancelled_total", phase="decode") == 1,
            "ended it",
        )
        assert server.metric("ollama_requests_running", model="m:latest") == 0
        assert resident_mib(server) - before_mib < 150


def test_a_slow_reader_gets_a_long_answer_whole(licensed):
    server = licensed(2)
    with connected(server) as client:
        client.sendall(post("/api/show", {"model": "m"}))
        head, _, body = client.recv(1024).partition(b"\r\n\r\n")
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        pieces = [body]
        while sum(map(len, pieces)) < length:
            pieces.append(client.recv(65536))
    assert len(json.loads(b"".join(pieces))["license"]) > 2 * MIB
