"""Transfer errors, permanent and transient, and their texts.

A registry can redirect to any host. So an error shows only the status of a response, except for an
error document that the registry itself sent.
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

from ollama_async.core.safe_text import replace_unprintable

MAX_TEXT_CHARACTERS = 600
ERROR_BODY_BYTES = 4096


def printable_line(text: str, max_characters: int) -> str:
    """``text`` as one printable line without runs of white space, truncated."""
    line = " ".join(text[: max_characters + 1].split())
    line = replace_unprintable(line, "\N{REPLACEMENT CHARACTER}")
    return line if len(line) <= max_characters else f"{line[: max_characters - 1]}…"


class TransferError(Exception):
    """A failed transfer. Parts of the text, such as URLs, may come from a registry."""

    def __init__(self, text: str) -> None:
        super().__init__(printable_line(text, MAX_TEXT_CHARACTERS))


class PermanentError(TransferError):
    """A retry would fail, too. ``status``: of the response; 0 without one."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NotInRegistry(PermanentError):
    """404, with Ollama's text, which clients match."""

    def __init__(self) -> None:
        super().__init__("file does not exist", status=404)


class TransientError(TransferError):
    """A retry may succeed. ``retry_after_s``: the pause that the registry requested, or 0."""

    def __init__(self, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class RegistryUnreachable(TransientError):
    """No connection was established."""


class _Error(msgspec.Struct, omit_defaults=True):
    code: str = ""
    message: str = ""


class _ErrorDocument(msgspec.Struct, omit_defaults=True):
    """``errors``: the format of OCI registries; ``error``: that of simpler ones."""

    errors: list[_Error] = []
    error: str = ""


def describe_status(status: int, body: bytes = b"") -> str:
    """``403: {"errors": [{"code": "DENIED"}]}`` as in Ollama, without other fields of ``body``;
    ``403: Forbidden`` if it is not an error document.
    """
    try:
        errors = msgspec.to_builtins(msgspec.json.decode(body, type=_ErrorDocument))
    except (ValueError, RecursionError):
        errors = {}
    if errors:
        return f"{status}: {json.dumps(errors, ensure_ascii=False)}"
    try:
        return f"{status}: {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def parse_retry_after(header: str) -> float:
    """Seconds from now, for both forms of ``Retry-After``; 0 if it is missing or invalid."""
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, moment - time.time())


class translate_errors:  # noqa: N801  # used as a function; a generator would hide the traceback's end
    """Context manager: translates exceptions of the HTTP client into transfer errors."""

    def __init__(self, method: str, url: URL) -> None:
        # queries of storage hosts are secrets
        self._what = f'{method.capitalize()} "{url.with_query(None)}"'

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        match error:
            case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
                raise PermanentError(f"{self._what}: {error}") from error
            case aiohttp.ClientSSLError():
                hint = 'is it a plain HTTP registry? then use --insecure, or "insecure": true'
                raise PermanentError(f"{self._what}: {error} ({hint})") from error
            case aiohttp.SocketTimeoutError():
                raise TransientError(f"{self._what}: nothing was received for too long") from error
            case TimeoutError() if not isinstance(error, aiohttp.ClientError):
                raise TransientError(f"{self._what}: no progress for too long") from error
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                raise RegistryUnreachable(f"{self._what}: {_reason(error)}") from error
            case socket.gaierror():
                raise RegistryUnreachable(f"{self._what}: {error.strerror}") from error
            case aiohttp.InvalidURL():
                raise PermanentError(f"{self._what}: invalid address") from error
            case aiohttp.ClientError() | OSError() | asyncio.TimeoutError():
                raise TransientError(f"{self._what}: {_reason(error)}") from error
            case _:
                pass


def _reason(error: Exception) -> str:
    """Our own text: the library's texts quote the response."""
    match error:
        case aiohttp.ClientResponseError():
            return "the response is not HTTP"
        case aiohttp.ClientPayloadError():
            return "the response was cut off"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    return "no connection"
