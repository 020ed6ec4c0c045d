"""Which addresses one transfer may reach: its registry's own, and public ones.

*Home* is the host that the client named. Its name is looked up once, and the transfer connects to
what was found then, whatever the name says later. Of addresses of several kinds only the most
distant count: public, then private, then those of this machine.

How near home may be depends on who asks (:class:`Asker`):

- a program on this machine may name everything but special addresses (:class:`.Nearness`);
- a client on the network may name public addresses only. Which others it could reach itself cannot
  be known: a neighbour may let this machine in, by its address, and keep the client out;
- anybody may name a registry that the operator trusts, wherever it is.

Where home leads, by a redirect, as the place where tokens are given out or as that of an upload,
may be

- home's own addresses, on any port;
- public addresses;
- private ones, if home is private or on this machine;
- others of this machine, if home is on it, and trusted.

It is never a special address, and neither home nor anything else is ever this server itself. Each
name is looked up and its addresses are checked before each request; the connection goes to one of
those that were checked.

Behind a proxy of the environment it is the proxy that looks up names and connects. Checked is what
can be: addresses, as above, and names that are none of the internet (``localhost``, those without a
dot, ``*.internal`` and the like), which count as private.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from enum import IntEnum
from typing import TypeVar

import msgspec
import psutil
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ollama_async.core.ip_addresses import parse_ip
from ollama_async.registry.errors import Refused

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Nearness(IntEnum):
    PUBLIC = 0
    PRIVATE = 1
    OURSELVES = 2
    """Loopback, or an address of this machine's: firewalls do not stand between us and us."""
    SPECIAL = 3
    """Link-local, multicast, reserved, a cloud's metadata, or a tunnel to some IPv4 address."""


_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # the host of a machine in Azure
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b:1::/48",  # NAT64 of a network's own, with the IPv4 address at various places
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fd00:42::42/128",  # metadata of Scaleway
        "fd00:ec2::/32",  # metadata of AWS
        "fd20:ce::254/128",  # metadata of Google Cloud
    )
)
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
"""Older Pythons take it for global."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is assigned to hosts on the internet."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""What stands before the IPv4 address in the lower half of an address of such a tunnel."""
_NAME = re.compile(r"(?:[a-z0-9_][a-z0-9_-]{0,62}\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)


def nearness(address: str, own: Collection[str] = ()) -> Nearness:
    """Of an IP address in text, perhaps with a zone. ``own``: addresses of this machine.

    :raises ValueError: it is none in the one usual notation.
    """
    return _nearness(parse_ip(address), {parse_ip(each) for each in own})


def own_addresses() -> set[str]:
    """Of all interfaces of this machine. Asks the system: a millisecond."""
    return {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    }


def is_loopback(host: str) -> bool:
    """An address or a name that means this machine to everybody."""
    try:
        return parse_ip(host).is_loopback
    except ValueError:
        return f".{host.lower().removesuffix('.')}".endswith(".localhost")


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name."""
    try:
        parse_ip(host)
    except ValueError:
        return False
    return True


def is_sound(host: str) -> bool:
    """An IP address in its usual notation, or a name that nobody could read as an address.

    ``127.1``, ``2130706433``, ``0x7f.0.0.1`` and ``0177.0.0.1`` are neither, though systems connect
    to 127.0.0.1 for them.
    """
    if is_address(host):
        return True
    last = host.removesuffix(".").rpartition(".")[2]
    return len(host) <= 254 and bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(last)


def _nearness(ip: _Address, own: Collection[_Address]) -> Nearness:
    if ip.is_loopback or ip.is_unspecified or ip in own:  # the unspecified one connects to us, too
        return Nearness.OURSELVES
    if any(ip in network for network in _SPECIAL):
        return Nearness.SPECIAL
    if isinstance(ip, ipaddress.IPv4Address):
        return _of_range(ip)
    if ip in _NAT64:
        return _nearness(_last_32_bits(ip), own)
    near = _of_range(ip) if ip in _UNICAST or ip.is_private else Nearness.SPECIAL
    if int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return max(near, _nearness(_last_32_bits(ip), own))
    return near


def _of_range(ip: _Address) -> Nearness:
    is_site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    if ip.is_link_local or ip.is_multicast or ip.is_reserved or is_site_local:
        return Nearness.SPECIAL
    is_public = ip.is_global and ip not in _DOCUMENTATION
    return Nearness.PUBLIC if is_public else Nearness.PRIVATE


def _last_32_bits(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


T = TypeVar("T")

RESOLVE_TIMEOUT_S = 20.0
MOST_ADDRESSES = 64
"""Of one name: a server of names may send thousands, and each is compared with our own."""
_LOCAL_SUFFIXES = (
    *(".local", ".internal", ".home.arpa", ".lan", ".home", ".corp", ".intranet"),
    *(".svc", ".private", ".localdomain", ".test"),
)

_Found = tuple[str, Nearness]
"""An address; of a name that a proxy looks up, the name."""


class Asker(msgspec.Struct, frozen=True):
    """Who wants a transfer. ``own_port``: where this server was reached, 0 if that is unknown."""

    is_local: bool = False
    """A program on this machine, which speaks for itself."""
    own_port: int = 0


HERE = Asker(is_local=True)


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, from the system. Blocks. :raises OSError: no such name."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:  # a label is empty, or has more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "the name cannot be resolved") from None
    return [str(address[0]) for *_, address in infos]


def how_near(address: str) -> Nearness:
    """Of an address, as seen from this machine. Blocks for a moment."""
    return nearness(address, own_addresses())


class Surroundings(msgspec.Struct, frozen=True):
    """What is around us. ``trusted``: registries of the operator, ``host`` or ``host:port``."""

    trusted: frozenset[str] = frozenset()
    look_up: Callable[[str, int], list[str]] = look_up
    how_near: Callable[[str], Nearness] = how_near

    def find(self, host: str, port: int) -> list[_Found]:
        """The addresses of a name or an address. Blocks. :raises OSError: no such name."""
        addresses = [host] if is_address(host) else self.look_up(host, port)
        return [(address, self.how_near(address)) for address in addresses[:MOST_ADDRESSES]]


USUAL = Surroundings()


class Vicinity(AbstractResolver):
    """The resolver of one transfer. It knows only what :meth:`admit` has let in."""

    def __init__(
        self,
        home: URL,
        asker: Asker,
        surroundings: Surroundings,
        *,
        proxies: Collection[str] = (),
        threads: Executor | None = None,
    ) -> None:
        """``home``: the registry's origin. ``proxies``: hosts that the operator named.

        ``threads`` wait for the system's resolver.
        """
        self._home_url = home
        self._asker = asker
        self._surroundings = surroundings
        self._is_trusted = _is_trusted(home, surroundings.trusted)
        self._proxies = proxies
        self._threads = threads
        self._settling = asyncio.Lock()
        self._home: list[str] | None = None
        self._near = Nearness.PUBLIC
        self._admitted: dict[str, list[str]] = {}

    @property
    def is_confined(self) -> bool:
        """Whether what home says may concern our own network, and nobody vouches for home."""
        return self._near > Nearness.PUBLIC and not self._is_trusted

    async def admit(self, url: URL, *, is_proxied: bool = False) -> None:
        """Have the addresses of ``url`` ready for :meth:`resolve`, if they may be reached.

        The first of a transfer is home's own.

        :raises Refused: they may not.
        :raises OSError: no such name, or not within :data:`RESOLVE_TIMEOUT_S`.
        """
        host = url.raw_host or ""
        if not is_sound(host):
            raise Refused(f"{host} is neither a host's name nor an address as it is written")
        async with self._settling:
            if self._home is None:
                self._home, self._near = await self._settled(is_proxied=is_proxied)
        if host == self._home_url.raw_host and (is_proxied or host in self._admitted):
            allowed = [(address, self._near) for address in self._home]
        else:
            found = await self._found(url, is_proxied=is_proxied)
            allowed = [(address, near) for address, near in found if self._allows(address, near)]
        if not allowed:
            raise TooNear(host)
        if url.port == self._asker.own_port and Nearness.OURSELVES in dict(allowed).values():
            raise Refused(f"{host}:{url.port} is this server itself")
        if not is_proxied:
            self._admitted[host] = [address for address, _ in allowed]

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # part of the contract
    ) -> list[ResolveResult]:
        """:raises OSError: no such proxy. :raises Refused: nobody let ``host`` in."""
        addresses = self._admitted.get(host)
        if addresses is None and host in self._proxies:
            addresses = await self._in_thread(self._surroundings.look_up, host, port)
        if addresses is None:
            raise TooNear(host)
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing to release."""

    async def _settled(self, *, is_proxied: bool) -> tuple[list[str], Nearness]:
        """Where home is, for the whole transfer."""
        host = self._home_url.raw_host or ""
        found = await self._found(self._home_url, is_proxied=is_proxied)
        home_near = min(near for _, near in found)
        if home_near > self._most_near:
            raise NotForYou(host)
        home = [address for address, near in found if near == home_near]
        if not is_proxied:
            self._admitted[host] = home
        return home, home_near

    @property
    def _most_near(self) -> Nearness:
        """Of home, for this asker."""
        if self._is_trusted:
            return Nearness.SPECIAL
        return Nearness.OURSELVES if self._asker.is_local else Nearness.PUBLIC

    def _allows(self, address: str, near: Nearness) -> bool:
        nearest = Nearness.OURSELVES if self._is_trusted else Nearness.PRIVATE
        is_home = self._home is not None and address in self._home
        return is_home or near <= min(self._near, nearest)

    async def _found(self, url: URL, *, is_proxied: bool) -> list[_Found]:
        host = url.raw_host or ""
        if is_proxied and not is_address(host):
            return [(host, _of_name(host))]
        return await self._in_thread(self._surroundings.find, host, url.port or 0)

    async def _in_thread(self, call: Callable[[str, int], T], host: str, port: int) -> T:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, call, host, port)


class TooNear(Refused):
    def __init__(self, host: str) -> None:
        super().__init__(f"the registry leads to a private address ({host}), which is not allowed")


class NotForYou(Refused):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} has an address that this client may not name"
            " (OLLAMA_ASYNC_TRUSTED_REGISTRIES of the server could allow it)"
        )


def _is_trusted(home: URL, trusted: Collection[str]) -> bool:
    host = (home.raw_host or "").lower().removesuffix(".")
    return host in trusted or f"{host}:{home.port}" in trusted


def _of_name(host: str) -> Nearness:
    if is_loopback(host):
        return Nearness.OURSELVES
    name = f".{host.lower().removesuffix('.')}"
    is_local = name.count(".") == 1 or name.endswith(_LOCAL_SUFFIXES)
    return Nearness.PRIVATE if is_local else Nearness.PUBLIC


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
