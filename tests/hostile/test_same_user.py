"""Who can have the server read files of its user: nobody but that user's own command."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ollama_async.core.local_key import HEADER, proof, read_key
from tests.integration.conftest import RunningServer


class Relay:
    """A port forward of the server's own user: bytes pass, and no header is added."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.address = "{}:{}".format(*self._listener.getsockname())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=_pump, args=(source, sink)))
                    self._threads[-1].start()

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def server(start_server) -> RunningServer:
    return start_server()


@pytest.fixture
def relay(server: RunningServer) -> Iterator[str]:
    place = urlsplit(server.url)
    assert place.hostname
    assert place.port
    relay = Relay((place.hostname, place.port))
    yield relay.address
    relay.close()


@pytest.fixture
def modelfile(tmp_path: Path, demo_model: Path) -> Path:
    path = tmp_path / "Modelfile"
    path.write_text(f"FROM {demo_model}\n")
    return path


def test_a_relay_cannot_make_models_of_private_files(
    server, relay, tmp_path, modelfile, demo_model
):
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE")
    key = read_key(Path(server.environment["OLLAMA_ASYNC_CACHE"]))
    host, _, port = relay.partition(":")
    for headers in ({}, {HEADER: proof(key, host, int(port))}, {HEADER: key.hex()}):
        for named in (
            {"modelfile": f"FROM {demo_model}\nADAPTER {secret}"},
            {"path": str(modelfile)},
            {"files": {"m.gguf": str(demo_model)}},
            {"from": "m", "adapters": {"a": str(secret)}},
        ):
            answer = httpx.post(
                f"http://{relay}/api/create", json={"model": "m", **named}, headers=headers
            )
            assert answer.status_code == 403, answer.text
            assert "PRIVATE" not in answer.text
    assert httpx.get(f"{server.url}/api/tags").json() == {"models": []}


def test_the_command_names_files_and_through_a_relay_it_sends_them(
    server, relay, modelfile, demo_model
):
    direct = server.command("create", "near", "-f", str(modelfile))
    assert f"copying file {demo_model.name}" in direct.stderr
    assert "hashing" not in direct.stderr
    server.environment["OLLAMA_HOST"] = relay
    relayed = server.command("create", "far", "-f", str(modelfile))
    assert f"hashing {demo_model.name}" in relayed.stderr
    near, far = httpx.get(f"{server.url}/api/tags").json()["models"]
    assert near["digest"] == far["digest"]


def test_without_the_key_the_command_sends_files(server, modelfile, demo_model):
    Path(server.environment["OLLAMA_ASYNC_CACHE"], "local-key").unlink()
    done = server.command("create", "m", "-f", str(modelfile))
    assert f"hashing {demo_model.name}" in done.stderr
