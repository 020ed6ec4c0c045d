"""aiohttp's parser of requests, within bounds on all that is no body.

aiohttp bounds each field of a head and their number. Browsers send all cookies of ``localhost`` in
one field, so a field may be as long as Go lets the whole head be, and it is the whole that has to
be bounded here: heads, and what follows the last chunk of a body (trailers).
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
"""Of a request's line and fields together; Go's servers have the same limit."""

TARGET_LIMIT_BYTES = 64 << 10
"""Of what follows the method. aiohttp and its library for addresses remember the last hundreds of
them, so each may pin as much."""

FIELDS_LIMIT = 1 << 14
"""Of a head. They take 10 ms to parse, about as long as the loop may be held up, and 7 MiB."""

_MOST_PIECES = 4096
"""Reads that bring one head. Each may copy what came before: a client that drips bytes must not
make us copy gigabytes. On the slowest network a piece is a packet, and a head 800 of them."""

_TOO_MANY_FIELDS = "Too many headers"
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_KNOWN_METHODS = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split())
_UNROUTED = b"UNLINK "

Parsed = tuple[Sequence[tuple[RawRequestMessage, StreamReader]], bool, bytes]


class BoundedParser:
    """Takes the place of aiohttp's parser; what is not here is its own.

    ``is_broken``: what follows on the connection is not looked at, in most cases because it cannot
    be understood.
    """

    def __init__(self, parser: HttpRequestParser) -> None:
        self.is_broken = False
        self._parser = parser
        self._is_first = True
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._body_bytes = 0
        self._held_bytes = 0
        self._held_pieces = 0

    @property
    def is_in_body(self) -> bool:
        """Whether some of the last request's body has not come yet."""
        return not self._payload.is_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> Parsed:
        """The requests whose heads end in ``data``. An error in a body goes to whoever reads it.

        :raises HttpProcessingError: a head is not one, or is too large. Once.
        """
        if self.is_broken:
            return (), False, b""
        try:
            return self._parsed(data)
        except HttpProcessingError as error:
            was_in_body = self.is_in_body
            self.stop(str(error))
            if not was_in_body:
                raise
            return (), False, b""

    def stop(self, reason: str = "") -> None:
        """Look at nothing that follows; whoever reads a body that is not whole gets an error."""
        self.is_broken = True
        if self.is_in_body:
            self._payload.set_exception(RequestPayloadError(reason))

    def _parsed(self, data: bytes) -> Parsed:
        if self._is_first and data:
            self._is_first = False
            data = _with_known_method(data)
        try:
            parsed: Parsed = self._parser.feed_data(data)
        except HttpProcessingError as error:
            is_too_large = isinstance(error, LineTooLong) or _TOO_MANY_FIELDS in error.message
            raise (_too_large() if is_too_large else error) from None
        self._bound(parsed[0], len(data))
        return parsed

    def _bound(self, messages: Sequence[tuple[RawRequestMessage, StreamReader]], size: int) -> None:
        if messages:
            _check_versions(messages)
            if self._held_bytes + size > HEAD_LIMIT_BYTES:
                _check_sizes(messages)
            self._payload = messages[-1][1]
        elif self._payload.total_bytes == self._body_bytes:
            self._held_bytes += size
            self._held_pieces += 1
            if self._held_bytes > HEAD_LIMIT_BYTES or self._held_pieces > _MOST_PIECES:
                raise _too_large()
            return
        self._body_bytes = self._payload.total_bytes
        self._held_bytes = self._held_pieces = 0


def _too_large() -> HttpProcessingError:
    return HttpProcessingError(code=431, message="request header fields too large")


def _with_known_method(data: bytes) -> bytes:
    """The parser knows some methods, and HTTP allows any. One that no route has stands for those
    that it may not know, so that they are answered as every wrong method is. Only in the first
    bytes of a connection: nobody tells us where the next request begins.
    """
    found = _METHOD.match(data)
    if found is None or found[0][:-1] in _KNOWN_METHODS:
        return data
    return _UNROUTED + data[found.end() :]


def _check_versions(messages: Sequence[tuple[RawRequestMessage, StreamReader]]) -> None:
    """A line without a version is one of HTTP/0.9 to the parser.

    :raises HttpProcessingError: there is one that is not ours.
    """
    for message, _ in messages:
        if message.version.major == 0:
            raise HttpProcessingError(code=400, message="malformed request line")
        if message.version.major > 1:
            raise HttpProcessingError(code=505, message="unsupported protocol version")


def _check_sizes(messages: Sequence[tuple[RawRequestMessage, StreamReader]]) -> None:
    """:raises HttpProcessingError: a head that came in one piece with its end is too large."""
    for message, _ in messages:
        fields = sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
        if len(message.method) + len(message.path) + fields > HEAD_LIMIT_BYTES:
            raise _too_large()
