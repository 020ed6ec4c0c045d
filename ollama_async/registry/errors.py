"""What can go wrong between us and a registry: for good, or for now."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import socket
import ssl
import time
from http import HTTPStatus

import aiohttp
import msgspec
from yarl import URL

LONGEST_TEXT = 600


class Failure(Exception):
    """Base of both; the text is what the client reads after what was tried.

    It may hold what a registry said, such as addresses: it is cut, and made one printable line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, LONGEST_TEXT))


def printable(text: str, longest: int) -> str:
    """In one line, without what would change a terminal or how the rest is read."""
    line = " ".join(text[: longest + 1].split())
    line = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class Refused(Failure):
    """Asking again would change nothing. ``status``: the registry's, 0 if it was not the one."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NotThere(Refused):
    """404, in Ollama's words, which clients match on."""

    def __init__(self) -> None:
        super().__init__("file does not exist", status=404)


class Transient(Failure):
    """May be better a moment later. ``after_s``: the registry named the moment."""

    def __init__(self, text: str, *, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


COMPLAINT_BYTES = 4096


class Unreachable(Transient):
    """There was not even a connection."""


class _Error(msgspec.Struct, omit_defaults=True):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct, omit_defaults=True):
    """The body of a refusal: of registries in general, and of those who say it in one text."""

    errors: list[_Error] = []
    error: str = ""


def said(status: int, body: bytes = b"") -> str:
    """``403: {"errors": [{"code": "DENIED"}]}``, as Ollama shows it, without anything else that is
    in ``body``; without such errors ``403: Forbidden``.
    """
    try:
        errors = msgspec.to_builtins(msgspec.json.decode(body, type=_Errors))
    except (ValueError, RecursionError):
        errors = {}
    if errors:
        return f"{status}: {json.dumps(errors, ensure_ascii=False)}"
    try:
        return f"{status}: {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def retry_after_s(header: str) -> float:
    """Seconds from now, of either form of the header; 0 if it says nothing."""
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, moment - time.time())


class as_failures:  # noqa: N801  # used as a function; a generator would hide the traceback's end
    """Turns what the HTTP client raises into our two kinds."""

    def __init__(self, method: str, url: URL) -> None:
        # queries of storage hosts are secrets
        self._what = f'{method.capitalize()} "{url.with_query(None)}"'

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        match error:
            case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
                raise Refused(f"{self._what}: {error}") from error
            case aiohttp.ClientSSLError():
                hint = 'is it a plain HTTP registry? then use --insecure, or "insecure": true'
                raise Refused(f"{self._what}: {error} ({hint})") from error
            case aiohttp.SocketTimeoutError():
                raise Transient(f"{self._what}: nothing came for too long") from error
            case TimeoutError() if not isinstance(error, aiohttp.ClientError):
                raise Transient(f"{self._what}: nothing moved for too long") from error
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                raise Unreachable(f"{self._what}: {_reason(error)}") from error
            case socket.gaierror():
                raise Unreachable(f"{self._what}: {error.strerror}") from error
            case aiohttp.InvalidURL():
                raise Refused(f"{self._what}: no such address") from error
            case aiohttp.ClientError() | OSError() | asyncio.TimeoutError():
                raise Transient(f"{self._what}: {_reason(error)}") from error
            case _:
                pass


def _reason(error: Exception) -> str:
    """The library's texts quote what came, which may be anybody's."""
    match error:
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    return "no connection"
