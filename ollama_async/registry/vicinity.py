"""Which addresses a transfer may reach: never one nearer to us than the registry that we asked.

A registry decides where its redirects lead and what its names resolve to. A public one has no
business with our private network, our link's neighbours (clouds keep their secrets there) or this
machine; one on our own network may refer to a neighbour. The check is made on the very addresses
that are then connected to, so what a name says later makes no difference.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Collection
from concurrent.futures import Executor
from enum import IntEnum

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ollama_async.registry.failures import Refused

RESOLVE_TIMEOUT_S = 20.0


class Nearness(IntEnum):
    PUBLIC = 0
    PRIVATE = 1
    OURSELVES = 2
    SPECIAL = 3


def nearness(address: str) -> Nearness:
    """Of an IP address in text, perhaps with a zone. :raises ValueError: it is none."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified:  # the unspecified one connects to this machine, too
        return Nearness.OURSELVES
    if ip.is_link_local or ip.is_multicast or ip.is_reserved:
        return Nearness.SPECIAL
    return Nearness.PUBLIC if ip.is_global else Nearness.PRIVATE


class Vicinity(AbstractResolver):
    """The resolver of one transfer.

    ``home``: the host that the user named, which may be anywhere. ``proxies``: hosts that the
    operator named.
    """

    def __init__(
        self, home: str, proxies: Collection[str] = (), threads: Executor | None = None
    ) -> None:
        """``threads`` wait for the system's resolver."""
        self._home = home
        self._threads = threads
        self._proxies = proxies
        self._limit: Nearness | None = None
        if (literal := _literal(home)) is not None:
            self._limit = literal

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """:raises OSError: no such name, or only addresses that are too near (Refused)."""
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            look_up = functools.partial(_look_up, host, port, family)
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        if host in self._proxies:
            return found
        if host == self._home and self._limit is None:
            self._limit = min(nearness(result["host"]) for result in found)
        allowed = [result for result in found if self._allows(nearness(result["host"]))]
        if not allowed:
            raise TooNear(host)
        return allowed

    def check(self, url: URL) -> None:
        """Hosts that are addresses already never get to :meth:`resolve`. :raises Refused:"""
        literal = _literal(url.host or "")
        if literal is not None and url.host != self._home and not self._allows(literal):
            raise TooNear(url.host or "")

    def _allows(self, near: Nearness) -> bool:
        return near <= (self._limit or Nearness.PUBLIC)

    async def close(self) -> None:
        """Nothing to release."""


class TooNear(Refused):
    def __init__(self, host: str) -> None:
        super().__init__(f"the registry leads to a private address ({host}), which is not allowed")


def _literal(host: str) -> Nearness | None:
    try:
        return nearness(host)
    except ValueError:
        return None


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    infos = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
    )
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in infos
    ]
