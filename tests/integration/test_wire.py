"""What clients without a library see of a real server: sockets, and bytes as they come."""

import hashlib
import json
import socket
from pathlib import Path

import httpx
import pytest

from ollama_async.gocompat.json_encode import encode_line
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.store.manifests import Config, Layer, Manifest

DEADLINE_S = 20.0
SCRIPTS = {"story": {"tokens": ["one ", "two ", "three "]}}
GENERATE = {"model": "story", "prompt": "go"}
CHAT = {"model": "story", "messages": [{"role": "user", "content": "go"}]}


@pytest.fixture
def server(start_server):
    return start_server(scripts=SCRIPTS)


def ask(server, data: bytes) -> bytes:
    """Send ``data``; all that comes until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        connection.sendall(data)
        answer = bytearray()
        while part := connection.recv(1 << 16):
            answer += part
    return bytes(answer)


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    return int(status_line.split()[1]), dict(line.split(": ", 1) for line in lines), rest


def as_nginx_asks(path: str, body: dict, connection: str) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.0\r\nHost: localhost\r\nConnection: {connection}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_of_http_1_0_sees_the_end_of_every_stream(start_server, connection):
    server = start_server(scripts=SCRIPTS, offers_shipped=True)
    streams = {
        "/api/generate": GENERATE,
        "/api/chat": CHAT,
        "/api/pull": {"model": "demo-embed"},
        "/api/create": {"model": "mine", "from": "demo-embed", "system": "be brief"},
        "/api/push": {"model": "nobody"},
    }
    for path, body in streams.items():
        status, headers, rest = parted(ask(server, as_nginx_asks(path, body, connection)))

        assert status == 200, path
        assert headers.keys().isdisjoint({"Transfer-Encoding", "Connection"}), path
        last = json.loads(rest.splitlines()[-1])
        assert last.get("done") or last.get("status") == "success" or "error" in last, path


def test_a_worker_that_dies_under_a_client_of_http_1_0_ends_its_stream(start_server):
    server = start_server(scripts={"story": {**SCRIPTS["story"], "crash_at": 2}})
    answer = ask(server, as_nginx_asks("/api/generate", GENERATE, "keep-alive"))

    assert "unexpectedly stopped" in json.loads(answer.splitlines()[-1])["error"]


def test_all_cookies_of_localhost_are_taken(server):
    for size, status in ((500_000, 200), (1_000_000, 200), (1_200_000, 431)):
        head = "GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        answer = ask(server, f"{head}Cookie: {'c' * size}\r\n\r\n".encode())

        assert parted(answer)[0] == status


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    ],
)
def test_what_is_no_http_is_answered_as_json_and_not_logged(server, data):
    before = server.log
    status, headers, body = parted(ask(server, data))

    assert status == 400
    assert json.loads(body)["error"]
    assert headers["Connection"] == "close"
    assert "Server" not in headers
    assert server.log == before


def plant(server, name: str, data: bytes) -> None:
    """Put a model into the store as a pull does, which asks no questions."""

    def blob(content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = f"{server.url}/api/blobs/{digest}"
        httpx.post(url, content=content, timeout=DEADLINE_S).raise_for_status()
        return digest

    config = encode_line(Config(model_format="gguf"))
    manifest = Manifest(
        config=Layer("application/vnd.docker.container.image.v1+json", blob(config), len(config)),
        layers=[Layer("application/vnd.ollama.image.model", blob(data), len(data))],
    )
    path = (
        Path(server.environment["OLLAMA_MODELS"])
        / "manifests/registry.ollama.ai/library"
        / name
        / "latest"
    )
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_line(manifest))


@pytest.mark.parametrize("kind", ["none", "no_vocab", None])
def test_a_model_without_a_vocabulary_kills_no_worker(server, tmp_path, kind):
    tokens = dict.fromkeys(f"tokenizer.ggml.{key}" for key in ("tokens", "scores", "token_type"))
    metadata = {**tokens, "tokenizer.ggml.model": kind, "llama.vocab_size": 548}
    data = write_tiny_model(tmp_path / "bare.gguf", metadata=metadata).read_bytes()
    plant(server, "bare", data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    def post(path, **body):
        return httpx.post(f"{server.url}{path}", json=body, timeout=DEADLINE_S)

    created = post("/api/create", model="new", files={"bare.gguf": digest}, stream=False)
    asked = [post("/api/generate", model="bare", prompt="x") for _ in range(2)]
    asked += [post("/api/generate", model="bare"), post("/api/chat", **{**CHAT, "model": "bare"})]

    assert (created.status_code, "no vocabulary" in created.json()["error"]) == (400, True)
    for answer in asked:
        assert answer.status_code == 500
        assert "unable to load model 'bare:latest': its file has no vocabulary" in answer.text
    assert server.metric("ollama_model_loads_total") == 0
    assert server.workers() == []
    assert post("/api/show", model="bare").status_code == 200
