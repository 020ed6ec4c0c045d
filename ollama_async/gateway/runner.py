"""How connections are served: the settings of aiohttp that the rest of the gateway relies on."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

KEEPALIVE_S = 75.0
"""How long an idle connection stays open: longer than the pools of usual clients and proxies."""

_NO_HTTP = (HttpProcessingError, RequestPayloadError)  # in the head, in the body


def build_runner(application: web.Application, *, shutdown_grace_s: float) -> web.AppRunner:
    """The runner of ``application``; its owner sets it up, binds sites and cleans it up.

    A client that leaves cancels its handler: while a prompt is read nothing is written, so no
    failing write would ever tell. ``shutdown_grace_s`` is what running answers get in ``cleanup``.
    There is no access log; the metrics count requests, and a line for each costs 30 µs.
    """
    logger = logging.getLogger("ollama_async.gateway.http")
    logger.addFilter(_is_ours)
    return web.AppRunner(
        application,
        logger=logger,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=shutdown_grace_s,
    )


def _is_ours(record: logging.LogRecord) -> bool:
    """False for bytes that are no HTTP: anyone could fill the log with their tracebacks."""
    return not (record.exc_info and isinstance(record.exc_info[1], _NO_HTTP))
