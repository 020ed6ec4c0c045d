"""What a client reads of an answer that is none, or of a connection that failed.

A registry decides which host answers, so nothing of an answer is shown but its status; of one from
the registry itself also the errors that are in the form of registries, which are meant to be read.
"""

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

from ollama_async.registry.errors import Refused, Transient

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
