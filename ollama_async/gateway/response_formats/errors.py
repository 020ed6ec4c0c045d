"""Errors in the shape of the protocol whose route was requested.

- Ollama, ``/api/…`` and all else: ``{"error": "…"}``, with a ``signin_url`` for a 401.
- OpenAI, ``/v1/…``: ``{"error": {"message", "type", "param", "code"}}``.
- Anthropic, ``/v1/messages…``: ``{"type": "error", "error": {"type", "message"}, "request_id"}``;
  also ``/v1/models…`` for its clients.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum

import msgspec

from ollama_async.api import anthropic, encode, ollama
from ollama_async.core.errors import ContextExceeded, ConversationNotHeld, NoAccount, ServerError

CONTEXT_CODE = "context_length_exceeded"
"""OpenAI's code, by which clients recognize that they must shorten the conversation."""

THREAD_CODE = "thread_unsupported_request"
"""Anthropic's code, on which clients send the whole conversation."""

ANTHROPIC_VERSION = "Anthropic-Version"
"""A header that each client of Anthropic's API sends."""

_OPENAI_TYPES = {404: "not_found_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Protocol(Enum):
    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def protocol_of(path: str, headers: Container[str] = ()) -> Protocol:
    """The protocol to which the path of a request belongs, also if there is no such route. Of those
    that have ``/v1/models``, its ``headers`` tell.
    """
    if f"{path}/".startswith("/v1/messages/"):
        return Protocol.ANTHROPIC
    if f"{path}/".startswith("/v1/models/") and ANTHROPIC_VERSION in headers:
        return Protocol.ANTHROPIC
    return Protocol.OPENAI if path == "/v1" or path.startswith("/v1/") else Protocol.OLLAMA


class OpenAIError(msgspec.Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIErrorResponse(msgspec.Struct):
    error: OpenAIError


ERRORS: dict[Protocol, type[msgspec.Struct]] = {
    Protocol.OLLAMA: ollama.ErrorResponse,
    Protocol.OPENAI: OpenAIErrorResponse,
    Protocol.ANTHROPIC: anthropic.ErrorResponse,
}


def error_body(protocol: Protocol, error: ServerError, request_id: str = "") -> bytes:
    """One JSON object."""
    return encode.to_json(error_object(protocol, error, request_id))


def error_object(protocol: Protocol, error: ServerError, request_id: str = "") -> msgspec.Struct:
    """Of one of the types in :data:`ERRORS`. ``request_id``: for Anthropic's."""
    message = _encodable(error.message)
    if protocol is Protocol.OPENAI:
        return _openai_error(error, message)
    if protocol is Protocol.ANTHROPIC:
        return _anthropic_error(error, message, request_id)
    signin_url = error.signin_url if isinstance(error, NoAccount) else ""
    return ollama.ErrorResponse(message, signin_url)


def _openai_error(error: ServerError, message: str) -> OpenAIErrorResponse:
    shown = OpenAIError(message, _type_of(error, _OPENAI_TYPES))
    if isinstance(error, ContextExceeded):
        shown.code = CONTEXT_CODE
    elif isinstance(error, ConversationNotHeld):
        shown.param, shown.code = "previous_response_id", "previous_response_not_found"
    return OpenAIErrorResponse(shown)


def _anthropic_error(error: ServerError, message: str, request_id: str) -> anthropic.ErrorResponse:
    shown = anthropic.Error(_type_of(error, _ANTHROPIC_TYPES), message)
    if isinstance(error, ConversationNotHeld):
        shown.details = anthropic.ErrorDetails(THREAD_CODE)
    return anthropic.ErrorResponse(shown, request_id)


def _type_of(error: ServerError, types: Mapping[int, str]) -> str:
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    return types.get(error.status, kind)


def _encodable(message: str) -> str:
    """It may quote headers, whose bytes may not be UTF-8."""
    return message.encode(errors="replace").decode()
