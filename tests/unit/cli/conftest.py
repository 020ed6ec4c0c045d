"""An HTTP server that answers as the test says."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

WAIT_FOR_HANG_UP = object()
"""In a stream: send nothing more, and note when the client hangs up."""


class FakeServer(ThreadingHTTPServer):
    """``answers``: (method, path) → (status, body or list of objects to stream)."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {("HEAD", "/"): (200, b"")}
        self.requests = []
        self.hung_up = threading.Event()
        self.wait_for_hang_up = WAIT_FOR_HANG_UP

    def bodies(self, path):
        return [json.loads(body) for _, where, body in self.requests if where == path]

    def handle_error(self, *_):
        try:
            raise  # noqa: PLE0704  # the library calls this while it handles the exception
        except ConnectionError:
            pass  # a client may hang up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, self.path, body))
        status, content = self.server.answers.get(
            (self.command, self.path), (404, b'{"error":"no such route"}')
        )
        self.send_response(status)
        if isinstance(content, bytes):
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for each in content:
            if each is WAIT_FOR_HANG_UP:
                self.rfile.read(1)
                self.server.hung_up.set()
                self.close_connection = True
                return
            line = each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815  # the library's names

    def log_message(self, *args):
        pass


@pytest.fixture
def fake(monkeypatch):
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()
