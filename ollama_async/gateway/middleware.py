"""The middleware around every handler: the one place where an error becomes an HTTP answer.

It checks the origin policy, times the request, and maps errors to the answers of the path's
protocol: :class:`ServerError` in its shape, and for unknown paths and methods Ollama's plain texts
or, below ``/v1``, the protocol's shape. A bug becomes a 500 with a request id; its traceback goes
to the log, never to the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from aiohttp import hdrs, web

from ollama_async.core.errors import Busy, MethodNotAllowed, NoAccount, NotFound, ServerError
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.body import BODY_PROCESSOR
from ollama_async.gateway.client_budgets import (
    BODY_RESERVATION,
    SEND_BUDGET,
    SEND_RESERVATION,
    Reservation,
)
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.origin_policy import OriginPolicy
from ollama_async.gateway.request_ids import REQUEST_ID, new_request_id
from ollama_async.gateway.response_formats.errors import Protocol, protocol_of
from ollama_async.gateway.responses import error_response, send_if_long
from ollama_async.gateway.signin_url import read_signin_url

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected: counted, never sent."""

_METHODS = ("HEAD", "GET", "POST", "DELETE")
"""Of all routes, in the order in which gin names those that a path has."""

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_middleware(
    policy: OriginPolicy, metrics: Metrics
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The application has a :data:`BODY_PROCESSOR` and a :data:`SEND_BUDGET`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_at = perf_counter()
        code = CLIENT_CLOSED_REQUEST
        request[REQUEST_ID] = new_request_id()
        try:
            with Reservation(request.app[SEND_BUDGET], request) as request[SEND_RESERVATION]:
                response = await _answer(request, handler, policy)
            code = response.status
        except web.HTTPException as answer:
            code = answer.status
            raise
        finally:
            resource = request.match_info.route.resource
            metrics.request(resource.canonical if resource is not None else "other", code, began_at)
        return response

    return middleware


async def _answer(
    request: web.Request, handler: Handler, policy: OriginPolicy
) -> web.StreamResponse:
    body_budget = request.app[BODY_PROCESSOR].budget
    try:
        with Reservation(body_budget, request) as request[BODY_RESERVATION]:
            response = policy.check(request) or await _handle(request, handler)
        return await send_if_long(request, response)
    except ServerError as error:
        if isinstance(error, NoAccount):
            error.signin_url = await run_in_thread(read_signin_url)
        return _error(request, error)
    except web.HTTPNotFound:
        return await _not_found(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(each for each in _METHODS if each in error.allowed_methods)
        return _method_not_allowed(request, allowed)
    except ConnectionError:
        return abort_connection(request)
    except (asyncio.CancelledError, web.HTTPException):
        raise  # the client disconnected; or aiohttp's own answer
    except Exception:  # noqa: BLE001  # a bug must cost one request only
        return _internal_error(request)


async def _handle(request: web.Request, handler: Handler) -> web.StreamResponse:
    """:raises Busy: nothing of the answer has been sent, and others need the memory it took."""
    reservation = request[SEND_RESERVATION]
    limit = asyncio.timeout(None)
    try:
        async with limit:
            reservation.interrupt = partial(limit.reschedule, 0)
            return await handler(request)
    except TimeoutError:
        if limit.expired():
            raise Busy(request.app[SEND_BUDGET].busy_text) from None
        raise
    finally:
        reservation.interrupt = None


async def _not_found(request: web.Request) -> web.Response:
    """Gin's 404; a known path with a trailing slash is redirected, as gin does."""
    path = request.rel_url.raw_path
    if path.endswith("/") and len(path) > 1:
        target = request.rel_url.with_path(path[:-1], encoded=True, keep_query=True)
        match = await request.app.router.resolve(request.clone(rel_url=target))
        if match.http_exception is None:
            status = 301 if request.method == hdrs.METH_GET else 307
            return web.Response(status=status, headers={"Location": str(target)})
    if protocol_of(request.path, request.headers) is Protocol.OLLAMA:
        return _plain_response(404, "404 page not found")
    return _error(request, NotFound("there is no such route"))


def _method_not_allowed(request: web.Request, allowed: str) -> web.Response:
    if protocol_of(request.path, request.headers) is Protocol.OLLAMA:
        return _plain_response(405, "405 method not allowed", Allow=allowed)
    response = _error(request, MethodNotAllowed(f"this route takes {allowed}"))
    response.headers["Allow"] = allowed
    return response


def _plain_response(status: int, text: str, **headers: str) -> web.Response:
    """As gin writes it, without a charset."""
    headers = {"Content-Type": "text/plain", **headers}
    return web.Response(body=text.encode(), status=status, headers=headers)


def _internal_error(request: web.Request) -> web.Response:
    request_id = request[REQUEST_ID]
    _log.exception("request %s failed: %s %s", request_id, request.method, request.path)
    if request.writer.output_size:  # half of an answer is out: it must not end like a whole one
        return abort_connection(request)
    return _error(request, ServerError(f"internal error (request {request_id})"))


def _error(request: web.Request, error: ServerError) -> web.Response:
    return error_response(error, protocol_of(request.path, request.headers), request[REQUEST_ID])


def abort_connection(request: web.Request) -> web.Response:
    """Close the connection at once.

    aiohttp drops the returned response silently. It would log a ``ConnectionError`` of a handler
    with a traceback.
    """
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=CLIENT_CLOSED_REQUEST)
