"""How long a server's event loop stands still, seen from outside."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

_TIMEOUT_S = 30.0
_PERIOD_S = 0.002


class Pauses:
    """Asks for ``/`` again and again over one connection, in a thread of its own, and remembers the
    longest wait. Who sends the attack must let go of the interpreter meanwhile (``sendall`` does).
    """

    def __init__(self, url: str) -> None:
        self.longest_s = 0.0
        self._host = urlsplit(url).netloc
        self._begun = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        question = f"GET / HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        with connected(self._host) as peer:
            while not self._end.is_set():
                began_at = time.perf_counter()
                peer.sendall(question)
                answer = peer.recv(4096)
                while b"Ollama is running" not in answer:
                    assert answer
                    answer += peer.recv(4096)
                self.longest_s = max(self.longest_s, time.perf_counter() - began_at)
                self._begun.set()
                self._end.wait(_PERIOD_S)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Pauses]:
        self._thread.start()
        try:
            assert self._begun.wait(_TIMEOUT_S)
            yield self
        finally:
            self._end.set()
            self._thread.join()


def connected(host: str) -> socket.socket:
    """A connection to ``host:port``."""
    name, _, port = host.rpartition(":")
    return socket.create_connection((name, int(port)), timeout=_TIMEOUT_S)


def longest_pause_s(url: str, attack: bytes) -> tuple[float, bytes]:
    """The longest wait of another client while ``attack``, a whole request, is sent, worked on and
    answered; and the head of the answer.
    """
    with Pauses(url).watched() as pauses, connected(urlsplit(url).netloc) as peer:
        with contextlib.suppress(ConnectionError):  # it may be refused before its end
            peer.sendall(attack)
        answer = peer.recv(65536)
    return pauses.longest_s, answer


def request(path: str, body: bytes, *fields: str, method: str = "POST") -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *fields, "", ""]).encode() + body
