"""Who a request comes from, as far as fairness between clients is concerned: its peer's address.

Headers such as ``X-Forwarded-For`` do not count: whoever sends them may send another one each time.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from aiohttp import web

from ollama_async.core.ip_addresses import parse_ip

_PREFIX = 64
"""Bits of an IPv6 address that tell clients apart: whoever has one address has all of its /64."""


def client_of(request: web.BaseRequest) -> str:
    """The client's name; equal for all connections that one host or home may open."""
    return _client_at(request.remote or "")


@lru_cache(1024)
def _client_at(address: str) -> str:
    try:
        found = parse_ip(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.IPv6Network((found, _PREFIX), strict=False))
