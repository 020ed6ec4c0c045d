"""A synchronous HTTP client for the server: JSON in, JSON or a stream of JSON lines out.

Uses ``http.client``, because a command sends one request at a time. Errors follow Ollama's rules:
the text is the body's ``error``, or the body itself. In a stream, a line that has ``error`` or is
not JSON is an error.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import platform
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, BinaryIO
from urllib.parse import quote

import msgspec

from ollama_async import __version__
from ollama_async.core.ip_addresses import is_loopback
from ollama_async.core.local_key import HEADER, proof
from ollama_async.core.settings import Address

CONNECT_TIMEOUT_S = 10.0
LINE_LIMIT_BYTES = 8_000_000
CHUNK_BYTES = 1 << 20
_NO_HEADERS: Mapping[str, str] = {}
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # listening there means all interfaces


class CommandFailed(Exception):
    """Ends a command with ``Error: TEXT`` and exit status 1."""


class ServerUnreachable(CommandFailed):
    def __init__(self) -> None:
        super().__init__("could not connect to ollama server, run 'ollama-async serve' to start it")


class ServerRefused(CommandFailed):
    """The server sent an error; ``status`` is 200 if it was in a stream. ``signin_url``: where its
    key can be added to an account, if that would help.
    """

    def __init__(self, status: int, text: str, signin_url: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.signin_url = signin_url


class Client:
    """Opens one connection per request. Not thread-safe.

    Responses have no deadline: a model may think for hours. TCP keep-alive detects a dead peer.
    """

    def __init__(self, address: Address, local_key: bytes | None = None) -> None:
        """``local_key``: see :mod:`ollama_async.core.local_key`."""
        self._local_key = local_key
        self._peer: tuple[str, int] = ("", 0)
        self._secure = address.scheme == "https"
        self._host = _LOOPBACKS.get(address.host, address.host)
        self._port = address.port
        self._path = address.path

    def check_alive(self) -> None:
        """:raises ServerUnreachable: no connection. :raises ServerRefused: another error."""
        with self._request("HEAD", "/"):
            pass

    @property
    def may_send_paths(self) -> bool:
        """Whether the server may accept files by their paths; known after :meth:`check_alive`."""
        return self._local_key is not None and is_loopback(self._peer[0])

    def call(self, method: str, path: str, value: Any = None) -> Any:
        """Send one request; returns its JSON response, None if empty."""
        with self._request(method, path, value) as response, _connection_errors():
            body = response.read()
        if not body:
            return None
        try:
            return msgspec.json.decode(body)
        except ValueError:
            text = body[:500].decode(errors="replace")
            raise ServerRefused(response.status, f"unexpected answer: {text}") from None

    def stream(
        self, path: str, value: Any, *, sends_paths: bool = False
    ) -> Generator[dict[str, Any], None, None]:
        """POST ``value`` and yield the objects of the response as they arrive.

        ``sends_paths``: prove to the server that we may name its files, see
        :attr:`may_send_paths`. Closing the generator cancels the request.
        """
        headers = {}
        if sends_paths:
            assert self._local_key is not None
            headers[HEADER] = proof(self._local_key, *self._peer)
        with self._request("POST", path, value, headers) as response:
            while line := _read_line(response):
                if len(line) > LINE_LIMIT_BYTES:
                    raise ServerRefused(200, "a line of the response is too long")
                if line.strip():
                    yield _object(line)

    def has_blob(self, digest: str) -> bool:
        try:
            with self._request("HEAD", f"/api/blobs/{digest}"):
                return True
        except ServerRefused as refusal:
            if refusal.status == http.HTTPStatus.NOT_FOUND:
                return False
            raise

    def send_blob(
        self, digest: str, file: BinaryIO, size_bytes: int, progress: Callable[[int], None]
    ) -> None:
        """Upload ``file``, from its start; ``progress`` receives the bytes sent so far.

        :raises CommandFailed: the file's size has changed.
        """

        def chunks() -> Iterator[bytes]:
            sent = 0
            while chunk := file.read(CHUNK_BYTES):
                sent += len(chunk)
                if sent > size_bytes:
                    break
                yield chunk
                progress(sent)
            if sent != size_bytes:
                raise CommandFailed("the file changed while it was sent")

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        with self._exchange("POST", f"/api/blobs/{digest}", headers, chunks()):
            pass

    def _request(
        self, method: str, path: str, value: Any = None, extra: Mapping[str, str] = _NO_HEADERS
    ) -> AbstractContextManager[http.client.HTTPResponse]:
        body = b"" if value is None else _encoded(value)
        headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson", **extra}
        if body or method == "POST":
            headers["Content-Length"] = str(len(body))
        return self._exchange(method, path, headers, [body] if body else [])

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterable[bytes]
    ) -> Iterator[http.client.HTTPResponse]:
        """Open a connection, send the request, yield the response, close."""
        connection = self._connect()
        try:
            with _connection_errors():
                connection.putrequest(method, quote(self._path + path, safe="/:%"))
                connection.putheader("User-Agent", _USER_AGENT)
                for name, text in headers.items():
                    connection.putheader(name, text)
                connection.endheaders()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for chunk in body:  # the server may respond before it has read everything
                        connection.send(chunk)
                response = connection.getresponse()
            with contextlib.closing(response):
                if response.status >= http.HTTPStatus.BAD_REQUEST:
                    raise _refusal(response)
                yield response
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        try:
            connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
            connection.connect()
        except ConnectionRefusedError:
            raise ServerUnreachable from None
        except (OSError, UnicodeError, http.client.InvalidURL) as reason:  # or an invalid host
            where = f"{self._host}:{self._port}"
            raise CommandFailed(f"could not connect to {where}: {reason}") from reason
        self._peer = connection.sock.getpeername()[:2]
        connection.sock.settimeout(None)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Translates errors of the connection. Use it only around connection calls."""
    try:
        yield
    except (OSError, http.client.HTTPException) as reason:
        raise CommandFailed(f"the connection to the server broke: {reason}") from reason


_USER_AGENT = f"ollama-async/{__version__} ({platform.machine()} linux)"


def _encoded(value: Any) -> bytes:
    """As JSON. Escapes invalid Unicode of typed text and file names."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def _read_line(response: http.client.HTTPResponse) -> bytes:
    with _connection_errors():
        return response.readline(LINE_LIMIT_BYTES + 1)


def _refusal(response: http.client.HTTPResponse) -> ServerRefused:
    with _connection_errors():
        body = response.read(LINE_LIMIT_BYTES).decode(errors="replace").strip()
    text, signin_url = body, ""
    with contextlib.suppress(ValueError):
        decoded = msgspec.json.decode(body.partition("\n")[0])
        if isinstance(decoded, dict) and isinstance(decoded.get("error"), str):
            text, signin_url = decoded["error"], str(decoded.get("signin_url", ""))
    text = text or f"{response.status} {response.reason}"
    return ServerRefused(response.status, text, signin_url)


def _object(line: bytes) -> dict[str, Any]:
    value: Any = None
    with contextlib.suppress(ValueError):
        value = msgspec.json.decode(line)
    if not isinstance(value, dict):
        raise ServerRefused(200, line.decode(errors="replace").strip())
    if error := value.get("error"):
        raise ServerRefused(200, str(error))
    return value
