"""Bounds aiohttp's request parser: the size of heads and trailers.

aiohttp bounds each header field and their number. Browsers send all cookies of ``localhost`` in one
field, so a field may be as long as Go allows the whole head to be. The sum is bounded here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

HEAD_LIMIT_BYTES = (1 << 20) + 4096
"""Of the request line and the fields together; the same limit as in Go's servers."""

TARGET_LIMIT_BYTES = 64 << 10
"""Of the request target. aiohttp and yarl cache hundreds of them, and each may pin as much."""

FIELDS_LIMIT = 1 << 14
"""Of a head. They take 7 MiB and 10 ms to parse, about as long as the loop may be blocked."""

_READS_LIMIT = 4096
"""Of reads for one head. Each may copy what came before, so a client that drips bytes could cause
gigabytes of copies. On the slowest network a read is a packet, and a head 800 of them."""

_TOO_MANY_FIELDS = "Too many headers"
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_KNOWN_METHODS = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split())
_UNROUTED = b"UNLINK "

Parsed = tuple[Sequence[tuple[RawRequestMessage, StreamReader]], bool, bytes]


class BoundedParser:
    """A proxy of aiohttp's parser. ``is_broken``: the rest of the connection is ignored."""

    def __init__(self, parser: HttpRequestParser) -> None:
        self.is_broken = False
        self._parser = parser
        self._is_first = True
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._body_bytes = 0
        self._head_bytes = 0
        self._head_reads = 0

    @property
    def is_in_body(self) -> bool:
        """Whether the last request's body is incomplete."""
        return not self._payload.is_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> Parsed:
        """The requests whose heads end in ``data``. An error in a body goes to its reader.

        :raises HttpProcessingError: a head is malformed or too large. Raised once.
        """
        if self.is_broken:
            return (), False, b""
        if self._is_first and data:
            self._is_first = False
            data = _with_known_method(data)
        try:
            parsed: Parsed = self._parser.feed_data(data)
            self._check_bounds(parsed[0], len(data))
        except HttpProcessingError as error:
            is_too_large = isinstance(error, LineTooLong) or _TOO_MANY_FIELDS in error.message
            reason = _too_large() if is_too_large else error
            was_in_body = self.is_in_body
            self.stop(str(reason))
            if not was_in_body:
                raise reason from None
            return (), False, b""
        return parsed

    def stop(self, reason: str = "") -> None:
        """Ignore all that follows; the reader of an incomplete body gets an error."""
        self.is_broken = True
        if self.is_in_body:
            self._payload.set_exception(RequestPayloadError(reason))

    def _check_bounds(
        self, messages: Sequence[tuple[RawRequestMessage, StreamReader]], size: int
    ) -> None:
        """:raises HttpProcessingError: a version is not supported, or a head is too large."""
        if messages:
            for message, _ in messages:
                _check_version(message)
            if self._head_bytes + size > HEAD_LIMIT_BYTES:
                for message, _ in messages:
                    _check_size(message)
            self._payload = messages[-1][1]
        elif self._payload.total_bytes == self._body_bytes:
            self._head_bytes += size
            self._head_reads += 1
            if self._head_bytes > HEAD_LIMIT_BYTES or self._head_reads > _READS_LIMIT:
                raise _too_large()
            return
        self._body_bytes = self._payload.total_bytes
        self._head_bytes = self._head_reads = 0


def _too_large() -> HttpProcessingError:
    return HttpProcessingError(code=431, message="request header fields too large")


def _with_known_method(data: bytes) -> bytes:
    """``data`` with an unknown method replaced by one that the parser knows and no route has.

    HTTP allows any method, and all unknown ones get the same answer. Only the first request of a
    connection is checked: only the parser knows where the next one begins.
    """
    found = _METHOD.match(data)
    if found is None or found[0][:-1] in _KNOWN_METHODS:
        return data
    return _UNROUTED + data[found.end() :]


def _check_version(message: RawRequestMessage) -> None:
    """A request line without a version is HTTP/0.9 to the parser."""
    if message.version.major == 0:
        raise HttpProcessingError(code=400, message="malformed request line")
    if message.version.major > 1:
        raise HttpProcessingError(code=505, message="unsupported protocol version")


def _check_size(message: RawRequestMessage) -> None:
    fields = sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
    if len(message.method) + len(message.path) + fields > HEAD_LIMIT_BYTES:
        raise _too_large()
