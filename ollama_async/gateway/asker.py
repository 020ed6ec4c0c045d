"""Who asks: a program on this machine for itself, or anybody else.

A reverse proxy or a browser on this machine is no such program, because it stands for others; both
say so in headers. A relay that says nothing cannot be told from one.
"""

from __future__ import annotations

from aiohttp import web

from ollama_async.core.ip_addresses import parse_ip
from ollama_async.registry.address_policy import Requester

_PASSED_ON = frozenset(
    {
        *("origin", "forwarded", "via"),
        *("x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for"),
        *("true-client-ip", "cf-connecting-ip", "fastly-client-ip", "fly-client-ip"),
    }
)
_PASSED_ON_PREFIX = "x-forwarded-"


def asker_of(request: web.Request) -> Requester:
    """In doubt, somebody on the network."""
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport else None
    own = transport.get_extra_info("sockname") if transport else None
    if not isinstance(peer, tuple) or not isinstance(own, tuple):
        return Requester()
    address = parse_ip(peer[0])
    is_here = address.is_loopback or address == parse_ip(own[0])
    return Requester(is_local=is_here and not was_passed_on(request), server_port=own[1])


def was_passed_on(request: web.Request) -> bool:
    """Whether a page or a proxy sent it, as it says itself."""
    names = map(str.lower, request.headers)
    return any(name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX) for name in names)
