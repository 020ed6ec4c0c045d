"""Whether a request comes from a command of our own user on this machine: see ``local_key``."""

from __future__ import annotations

from aiohttp import web

from ollama_async.core.ip_addresses import is_loopback
from ollama_async.core.local_key import HEADER, is_valid_proof
from ollama_async.gateway.asker import was_passed_on


def is_same_user(request: web.Request, key: bytes | None) -> bool:
    """No, in doubt: for what a page or a proxy sends, and if there is no ``key``."""
    said = request.headers.get(HEADER)
    if key is None or said is None or request.transport is None:
        return False
    if was_passed_on(request):
        return False
    peer = request.transport.get_extra_info("peername")
    own = request.transport.get_extra_info("sockname")
    if not (_is_address(peer) and _is_address(own)) or not is_loopback(peer[0]):
        return False
    return is_valid_proof(said, key, own[0], own[1])


def _is_address(name: object) -> bool:
    """Whether it is what a TCP socket says of itself: ``(host, port, …)``."""
    return isinstance(name, tuple) and len(name) >= 2
