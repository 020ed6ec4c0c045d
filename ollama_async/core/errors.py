"""All errors that clients can see.

::

    ServerError                     status  retry  text for the client
    ├── BadRequest                  400     no     its message
    │   ├── ContextExceeded         400     no     the prompt does not fit
    │   └── TemplateFailed          400     no     the chat template could not be run
    ├── Forbidden                   403     no     its message
    ├── NotFound                    404     no     its message
    ├── TooLarge                    413     no     the body is over a limit
    ├── UnreadableEncoding          415     no     the body is compressed
    ├── Busy                        503     yes    Ollama's "server busy" sentence, Retry-After
    ├── ShuttingDown                503     yes    the server is going away
    ├── StorageFailed               500     no     disk full, store not writable
    ├── RegistryFailed              500     no     another registry refused, or cannot be reached
    ├── LoadFailed                  500     no     the model could not be loaded, and why
    ├── WorkerDied                  500     yes    the worker process ended under the request
    └── EngineFailed                500     no     the engine refused this request

``retry``: whether the same request may succeed a moment later. Errors cross the process boundary as
``(code, message)``, and :func:`from_code` restores them. Only the gateway maps ``status`` to HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ollama_async.core.safe_text import escape_text, redact_paths

BUSY_TEXT = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's sentence, with its two blanks: clients match on it."""


class ServerError(Exception):
    """The base of all. ``message`` is what a client reads as ``{"error": message}``; it has no
    private paths, unlike ``str()``.

    Both may contain untrusted text (of a model file, of a registry) and end on terminals and in
    logs, so control characters are escaped.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        text = escape_text(message)
        super().__init__(text)
        self.message = redact_paths(text)


class BadRequest(ServerError):
    code = "bad_request"
    status = 400


class ContextExceeded(BadRequest):
    code = "context_exceeded"


class TemplateFailed(BadRequest):
    code = "template_failed"


class Forbidden(ServerError):
    code = "forbidden"
    status = 403


class NotFound(ServerError):
    code = "not_found"
    status = 404


class TooLarge(ServerError):
    code = "too_large"
    status = 413


class UnreadableEncoding(ServerError):
    code = "unreadable_encoding"
    status = 415


class Busy(ServerError):
    """The queue is full. ``retry_after_s`` is a whole number of seconds, at least 1."""

    code = "busy"
    status = 503

    def __init__(self, message: str = BUSY_TEXT, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(ServerError):
    code = "shutting_down"
    status = 503


class StorageFailed(ServerError):
    code = "storage_failed"


class RegistryFailed(ServerError):
    code = "registry_failed"


class LoadFailed(ServerError):
    code = "load_failed"


class WorkerDied(ServerError):
    code = "worker_died"


class EngineFailed(ServerError):
    code = "engine_failed"


def _with_subclasses(kind: type[ServerError]) -> Iterator[type[ServerError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


_BY_CODE = {kind.code: kind for kind in _with_subclasses(ServerError)}


def from_code(code: str, message: str) -> ServerError:
    """The error that a worker sent; an unknown code becomes a plain :class:`ServerError`."""
    return _BY_CODE.get(code, ServerError)(message)
