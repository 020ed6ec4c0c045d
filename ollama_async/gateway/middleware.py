"""The request boundary: the one place where an error becomes an HTTP answer.

A middleware around every handler. It asks the guards, times the request, and turns what comes out
into Ollama's answers: ``{"error": …}`` for our errors, gin's plain texts for unknown paths and
methods, and for a bug a 500 that names a request id, whose traceback is in the log once and never
on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from time import perf_counter

from aiohttp import hdrs, web

from ollama_async.core.errors import Forbidden, ServerError
from ollama_async.gateway.body import RequestBodies
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.origin_policy import PREFLIGHT_HEADERS, OriginPolicy, is_same_origin
from ollama_async.gateway.responses import error_response
from ollama_async.gateway.send_budget import RESERVATION, Reservation, SendBudget, sent

CLIENT_LEFT = 499
"""nginx's number for it: counted, never sent."""

_METHODS = ("HEAD", "GET", "POST", "DELETE")
"""Of all routes, in the order in which gin names those that a path has."""

_SHOWN = 100
"""Characters of a name that is refused."""

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def boundary(
    guards: OriginPolicy, metrics: Metrics, bodies: RequestBodies, budget: SendBudget
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_at = perf_counter()
        code = CLIENT_LEFT
        try:
            with Reservation(budget, request) as request[RESERVATION]:
                response = await _answered(request, handler, guards)
                bodies.release(request)
                response = await _sent(request, response)
            code = response.status
        except web.HTTPException as answer:
            code = answer.status
            raise
        finally:
            bodies.release(request)
            metrics.request(_endpoint(request), code, began_at)
        return response

    return guarded


async def _answered(
    request: web.Request, handler: Handler, guards: OriginPolicy
) -> web.StreamResponse:
    try:
        return _preflight(request, guards) or await handler(request)
    except ServerError as error:
        return error_response(error)
    except web.HTTPNotFound:
        return await _not_found(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(each for each in _METHODS if each in error.allowed_methods)
        return _plain(405, "405 method not allowed", Allow=allowed)
    except ConnectionError:
        return cut(request)
    except (asyncio.CancelledError, web.HTTPException):
        raise  # the client left; or aiohttp's own answer
    except Exception:  # noqa: BLE001  # the request boundary: a bug must cost one request only
        return _broken(request)


async def _sent(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    try:
        return await sent(request, response)
    except ServerError as error:
        return error_response(error)
    except ConnectionError:
        return cut(request)


def _preflight(request: web.Request, guards: OriginPolicy) -> web.Response | None:
    """Refuse strangers' pages; answer ``OPTIONS``, which no handler sees.

    :raises Forbidden: and which variable would allow it.
    """
    host = request.headers.get(hdrs.HOST, "")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin and not is_same_origin(origin, host):
        if not guards.is_allowed_origin(origin):
            raise Forbidden(
                f"origin {origin[:_SHOWN]!r} is not allowed; OLLAMA_ORIGINS can allow it"
            )
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers=PREFLIGHT_HEADERS)
    if not guards.is_allowed_host(host):
        host = host[:_SHOWN]
        raise Forbidden(
            f"host {host!r} is not allowed; add http://{host} to OLLAMA_ORIGINS to allow it"
        )
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204)
    return None


def header_signal(guards: OriginPolicy) -> Callable[..., Awaitable[None]]:
    """Takes our library's name out of every answer, and gives the CORS headers to one for a page of
    another, allowed origin.
    """

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall(hdrs.SERVER, None)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or is_same_origin(origin, request.headers.get(hdrs.HOST, "")):
            return
        if guards.is_allowed_origin(origin):
            response.headers.extend(guards.cors_headers(origin))

    return add_headers


async def _not_found(request: web.Request) -> web.Response:
    """Gin's 404; a known path with a slash too many is redirected, as gin does."""
    path = request.rel_url.raw_path
    if path.endswith("/") and len(path) > 1:
        target = request.rel_url.with_path(path[:-1], encoded=True, keep_query=True)
        match = await request.app.router.resolve(request.clone(rel_url=target))
        if match.http_exception is None:
            status = 301 if request.method == hdrs.METH_GET else 307
            return web.Response(status=status, headers={"Location": str(target)})
    return _plain(404, "404 page not found")


def _plain(status: int, text: str, **headers: str) -> web.Response:
    """As gin writes it, which names no charset."""
    headers = {"Content-Type": "text/plain", **headers}
    return web.Response(body=text.encode(), status=status, headers=headers)


def _broken(request: web.Request) -> web.Response:
    request_id = secrets.token_hex(6)
    _log.exception("request %s failed: %s %s", request_id, request.method, request.path)
    if request.writer.output_size:  # an answer is half sent: cutting it is the only honest end
        return cut(request)
    return error_response(ServerError(f"internal error (request {request_id})"))


def cut(request: web.Request) -> web.Response:
    """Close the connection at once. The response is for aiohttp, which finds it cannot be sent and
    is silent; a ``ConnectionError`` from a handler it would log with a traceback.
    """
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=CLIENT_LEFT)


def _endpoint(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"
