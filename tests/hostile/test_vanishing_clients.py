"""Clients that leave while a request of theirs runs or waits, and hide it as well as they can."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer, running_servers

pytestmark = pytest.mark.slow

SCRIPTS = {
    "endless": {"tokens": ["tick "], "repeat": True, "tokens_per_second": 20, "slots": 16},
    "quick": {"tokens": ["tock"]},
    "loads": {"tokens": ["tock"], "load_seconds": 600},
}
HEAD = "HTTP/1.1\r\nHost: localhost\r\n"
GET = f"GET / {HEAD}\r\n".encode()
ROOM_BYTES = 1 << 20
"""More than a gateway reads ahead."""


def post(path: str, fields: dict) -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} {HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


def generate(model: str, **fields: object) -> bytes:
    return post("/api/generate", {"model": model, "prompt": "x", **fields})


@contextlib.contextmanager
def connected(server: RunningServer) -> Iterator[socket.socket]:
    host, port = server.environment["OLLAMA_HOST"].split(":")
    with socket.create_connection((host, int(port)), timeout=LONG_WAIT_S) as client:
        yield client


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def closes(client: socket.socket) -> None:
    client.close()


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def sends_no_more(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server(tmp_path_factory, engine_cache) -> Iterator[RunningServer]:
    """With ``endless`` loaded. Each test leaves it without requests."""
    with running_servers(tmp_path_factory.mktemp("vanishing"), engine_cache) as start:
        server = start(scripts=SCRIPTS, OLLAMA_KEEP_ALIVE="-1", OLLAMA_MAX_LOADED_MODELS="3")
        loading = {"model": "endless"}
        httpx.post(
            f"{server.url}/api/generate", json=loading, timeout=LONG_WAIT_S
        ).raise_for_status()
        yield server


BEHIND = {
    "requests": GET * 32,
    "more requests than fit": GET * 40_000,
    "a body": post("/api/show", {"model": "x" * ROOM_BYTES}),
    "half a body": post("/api/show", {"model": "x" * ROOM_BYTES})[: ROOM_BYTES // 2],
    "half a head": GET[:-4],
    "answers": generate("endless") * 8,
    "rubbish": b"\x00rubbish\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("leaves", [closes, resets, sends_no_more])
def test_a_client_is_missed_whatever_it_sent_behind_its_request(server, leaves):
    before = cancelled(server)
    crowd = [(behind, is_streamed) for behind in BEHIND.values() for is_streamed in (True, False)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in crowd]
        for client, (_, is_streamed) in zip(clients, crowd, strict=True):
            client.sendall(generate("endless", stream=is_streamed))
        server.wait_until(lambda: running(server) == len(crowd), "saw them run")
        for client, (behind, _) in zip(clients, crowd, strict=True):
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(behind)
            leaves(client)
        server.wait_until(lambda: running(server) == 0, "missed them")
    assert cancelled(server) - before == len(crowd)


def running(server: RunningServer) -> float:
    return server.metric("ollama_requests_running", model="endless:latest")


def cancelled(server: RunningServer) -> float:
    return sum(
        server.metric("ollama_requests_cancelled_total", phase=phase)
        for phase in ("queue", "prefill", "decode")
    )


def test_a_crowd_that_left_leaves_the_queue_to_others(server):
    with contextlib.ExitStack() as crowd:
        for _ in range(560):
            crowd.enter_context(connected(server)).sendall(generate("endless") + GET * 32)
        server.wait_until(lambda: server.metric("ollama_requests_queued") > 100, "was full")

    server.wait_until(lambda: server.metric("ollama_requests_queued") == 0, "empty")
    asked = {"model": "endless", "prompt": "x", "options": {"num_predict": 2}, "stream": False}
    answer = httpx.post(f"{server.url}/api/generate", json=asked, timeout=LONG_WAIT_S)
    assert answer.json()["response"] == "tick tick "


def test_who_leaves_while_a_model_loads_is_missed(server):
    before = cancelled(server)
    with connected(server) as client:
        client.sendall(generate("loads") + GET * 32)
        server.wait_until(lambda: server.metric("ollama_models_loading") == 1, "loading")
    server.wait_until(lambda: cancelled(server) == before + 1, "missed")


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("path", ["/api/pull", "/api/create", "/api/push"])
def test_a_transfer_that_nobody_waits_for_any_more_ends(server, path, is_streamed):
    with socket.create_server(("127.0.0.1", 0)) as silent_registry:
        silent_registry.settimeout(LONG_WAIT_S)
        name = f"127.0.0.1:{silent_registry.getsockname()[1]}/a/b"
        fields = {"model": name, "insecure": True, "stream": is_streamed}
        if path == "/api/create":
            fields |= {"model": "mine", "from": name}
        if path == "/api/push":
            made = {"model": name, "from": "demo", "stream": False}
            httpx.post(f"{server.url}/api/create", json=made, timeout=LONG_WAIT_S)
        with connected(server) as client:
            client.sendall(post(path, fields) + GET * 32)
            transfer, _ = silent_registry.accept()
        with transfer:
            transfer.settimeout(LONG_WAIT_S)
            everything(transfer)


def test_an_upload_that_ends_half_way_leaves_nothing(server):
    head = f"POST /api/blobs/sha256:{'0' * 64} {HEAD}Content-Length: {1 << 30}\r\n\r\n"
    endings = [closes, resets, sends_no_more]
    for leaves in endings:
        with connected(server) as client:
            client.sendall(head.encode() + b"x" * (4 << 20))
            leaves(client)
    name, labels = "ollama_request_seconds_count", {"endpoint": "/api/blobs/{digest}"}
    server.wait_until(
        lambda: server.metric(name, code="499", **labels) == len(endings), "missed them"
    )
    blobs = Path(server.environment["OLLAMA_MODELS"]) / "blobs"
    assert not [file for file in blobs.rglob("*") if "0" * 64 in file.name]


def test_requests_in_a_row_on_one_connection_are_answered_in_order(server):
    with connected(server) as client:
        asked = generate("quick", stream=False)
        last = GET[:-2] + b"Connection: close\r\n\r\n"
        client.sendall(asked + GET + asked + GET * 40 + last)
        answers = everything(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(answers) == 44
    assert [b'"tock"' in answer for answer in answers] == [True, False, True] + [False] * 41


def test_a_half_closed_connection_gets_what_is_answered_at_once(server):
    with connected(server) as client:
        client.sendall(generate("quick", stream=False))  # loads it, which takes longer
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    for asked in (GET, generate("quick", stream=False), GET * 3):
        with connected(server) as client:
            client.sendall(asked)
            client.shutdown(socket.SHUT_WR)
            answers = everything(client).count(b"HTTP/1.1 200 OK\r\n")
            assert answers == max(asked.count(GET), 1)
