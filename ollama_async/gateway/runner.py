"""How connections are served: the settings of aiohttp that the rest of the gateway relies on."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.gateway.connection import Connection

KEEPALIVE_S = 75.0
"""How long an idle connection stays open: longer than the pools of usual clients and proxies."""

_LOGGER = logging.getLogger("ollama_async.gateway.http")


def build_runner(application: web.Application, *, shutdown_grace_s: float) -> web.AppRunner:
    """The runner of ``application``; its owner sets it up, binds sites and cleans it up.

    A client that leaves cancels its handler: while a prompt is read nothing is written, so no
    failing write would ever tell. ``shutdown_grace_s`` is what running answers get in ``cleanup``.
    There is no access log; the metrics count requests, and a line for each costs 30 µs.
    """
    _LOGGER.addFilter(_is_ours)
    return _Runner(application, shutdown_timeout=shutdown_grace_s)


class _Runner(web.AppRunner):
    """aiohttp's, but that it serves :class:`Connection`."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=True,
        )


class _Server(web.Server):
    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            logger=_LOGGER,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
        )


def _is_ours(record: logging.LogRecord) -> bool:
    """False for bodies that are no HTTP: anyone could fill the log with their tracebacks."""
    return not (record.exc_info and isinstance(record.exc_info[1], RequestPayloadError))
