"""All errors that clients can see.

They cross the process boundary as ``(code, message)``, and :func:`from_code` restores them. Only
the gateway maps ``status`` to HTTP. A client may retry after :class:`Busy`, :class:`ShuttingDown`
and :class:`WorkerDied`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ollama_async.core.safe_text import escape_text, redact_paths

BUSY_TEXT = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's sentence, with its two blanks: clients match on it."""


class ServerError(Exception):
    """``message`` is for the client, without private paths; ``str()`` is for logs. Both may contain
    untrusted text (of a model file, of a registry), so control characters are escaped.
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


class ConversationNotHeld(BadRequest):
    """The client counts on a conversation that the server would have to hold."""

    code = "conversation_not_held"


class TemplateFailed(BadRequest):
    code = "template_failed"


class Unauthorized(ServerError):
    code = "unauthorized"
    status = 401


class NoAccount(Unauthorized):
    """Only a server with an account at ollama.com could do it. ``signin_url``: where one could be
    linked, if that is known.
    """

    code = "no_account"

    def __init__(self, message: str = "unauthorized", *, signin_url: str = "") -> None:
        super().__init__(message)
        self.signin_url = signin_url


class Forbidden(ServerError):
    code = "forbidden"
    status = 403


class NotFound(ServerError):
    code = "not_found"
    status = 404


class MethodNotAllowed(ServerError):
    code = "method_not_allowed"
    status = 405


class TooLarge(ServerError):
    code = "too_large"
    status = 413


class UnreadableEncoding(ServerError):
    """The body is compressed."""

    code = "unreadable_encoding"
    status = 415


class NotSupported(ServerError):
    """A model of another kind could do it."""

    code = "not_supported"
    status = 501


class Busy(ServerError):
    """The queue is full. ``retry_after_s`` is at least 1."""

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
    """The error with this code; a plain :class:`ServerError` if the code is unknown."""
    return _BY_CODE.get(code, ServerError)(message)
