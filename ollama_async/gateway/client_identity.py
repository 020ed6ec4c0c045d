"""Identifies who sent a request: a client for fairness, a local program, the server's own user."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache

from aiohttp import hdrs, web

from ollama_async.core.ip_addresses import is_loopback, parse_ip
from ollama_async.core.local_key import HEADER, is_valid_proof
from ollama_async.registry.address_policy import Requester

_CLIENT_PREFIX_BITS = 64
"""Whoever has one IPv6 address has its whole /64, which therefore is one client."""

_PROXY_HEADERS = frozenset(
    {
        *("origin", "forwarded", "via"),
        *("x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for"),
        *("true-client-ip", "cf-connecting-ip", "fastly-client-ip", "fly-client-ip"),
    }
)
_PROXY_HEADER_PREFIX = "x-forwarded-"


def client_of(request: web.BaseRequest) -> str:
    """The client that fairness counts: the peer's address, or its /64 network.

    Headers such as ``X-Forwarded-For`` do not count: a client could send another one each time.
    """
    return _client_at(request.remote or "")


@lru_cache(1024)
def _client_at(address: str) -> str:
    try:
        ip = parse_ip(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((ip, _CLIENT_PREFIX_BITS), strict=False))


def credential_of(request: web.BaseRequest) -> bytes:
    """A digest of the API key that came with the request. No key is checked, but what one client
    keeps with its key is not shown to another behind the same proxy.
    """
    return hashlib.sha256(
        request.headers.get(hdrs.AUTHORIZATION, "").encode(errors="surrogateescape")
    ).digest()


def is_forwarded(request: web.Request) -> bool:
    """Whether the headers show a browser page or a proxy as the sender.

    A relay that adds no header cannot be told from a local program.
    """
    names = map(str.lower, request.headers)
    return any(name in _PROXY_HEADERS or name.startswith(_PROXY_HEADER_PREFIX) for name in names)


def requester_of(request: web.Request) -> Requester:
    """Whether a program on this machine sent the request for itself; in doubt, it did not."""
    addresses = _addresses(request)
    if addresses is None:
        return Requester()
    (peer_host, _), (own_host, own_port) = addresses
    peer = parse_ip(peer_host)
    is_here = peer.is_loopback or peer == parse_ip(own_host)
    return Requester(is_local=is_here and not is_forwarded(request), server_port=own_port)


def is_same_user(request: web.Request, key: bytes | None) -> bool:
    """Whether a command of the server's own user on this machine sent the request, as its proof
    shows (:mod:`ollama_async.core.local_key`). False without a ``key``.
    """
    proof = request.headers.get(HEADER)
    addresses = _addresses(request)
    if key is None or proof is None or addresses is None or is_forwarded(request):
        return False
    (peer_host, _), (own_host, own_port) = addresses
    return is_loopback(peer_host) and is_valid_proof(proof, key, own_host, own_port)


def _addresses(request: web.Request) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Host and port of both ends, peer first; None if the connection is closed or not TCP."""
    if request.transport is None:
        return None
    peer = request.transport.get_extra_info("peername")
    own = request.transport.get_extra_info("sockname")
    if not isinstance(peer, tuple) or not isinstance(own, tuple) or min(len(peer), len(own)) < 2:
        return None
    return peer[:2], own[:2]
