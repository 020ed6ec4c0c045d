"""Which addresses a transfer may connect to: those of its registry, and public ones.

The *registry* is the host that the client named. Its name is resolved once for the whole transfer.
If the addresses differ in scope (:class:`AddressScope`), only the most remote ones count: public,
then private, then this machine's.

The permitted scope of the registry depends on the :class:`Requester`:

- a program on this machine may name anything but special addresses;
- a client on the network may name public addresses only: another host of the network may admit this
  machine by its address and reject the client;
- every client may name a registry that the operator trusts, at any address.

A redirect, a token service or an upload location that the registry names may be at

- the registry's own addresses, on any port;
- public addresses;
- private ones, if the registry is private or on this machine;
- other addresses of this machine, if the registry is on it, and trusted.

It is never at a special address, and never this server itself. Each name is resolved and checked
before each request, and the connection uses a checked address.

A proxy of the environment resolves names itself. Then only the text can be checked: addresses as
above, and names that do not exist on the internet (``localhost``, names without a dot,
``*.internal`` and the like), which count as private.
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

from ollama_async.core.ip_addresses import is_loopback, parse_ip
from ollama_async.registry.errors import PermanentError

T = TypeVar("T")

RESOLVE_TIMEOUT_S = 20.0
MAX_ADDRESSES = 64
"""Per name: a DNS server may send thousands, each of which is compared with our own addresses."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

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
"""Older Pythons call it global."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""The range of hosts on the internet."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Precedes the IPv4 address in the lower half of an ISATAP address."""
_NAME = re.compile(r"(?:[a-z0-9_][a-z0-9_-]{0,62}\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
_LOCAL_SUFFIXES = (
    *(".local", ".internal", ".home.arpa", ".lan", ".home", ".corp", ".intranet"),
    *(".svc", ".private", ".localdomain", ".test"),
)


class AddressScope(IntEnum):
    """From remote to near. Tunnels and mapped addresses have the scope of the inner address."""

    PUBLIC = 0
    PRIVATE = 1
    THIS_MACHINE = 2
    """Loopback, or an address of an interface. Firewalls do not filter these."""
    SPECIAL = 3
    """Link-local, multicast, reserved, cloud metadata, or a tunnel to an IPv4 address."""


def address_scope(address: str, own: Collection[str] = ()) -> AddressScope:
    """The scope of an IP address, with or without a zone. ``own``: addresses of this machine.

    :raises ValueError: it is not an address in the usual notation.
    """
    return _scope(parse_ip(address), {parse_ip(each) for each in own})


def interface_addresses() -> set[str]:
    """The addresses of this machine's interfaces."""
    return {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    }


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` is an address or name of every machine for itself."""
    return is_loopback(host) or f".{host.lower().removesuffix('.')}".endswith(".localhost")


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name."""
    try:
        parse_ip(host)
    except ValueError:
        return False
    return True


def is_unambiguous(host: str) -> bool:
    """Whether ``host`` is an IP address in its usual notation, or a name that no resolver could
    read as an address.

    False for ``127.1``, ``2130706433``, ``0x7f.0.0.1`` and ``0177.0.0.1``: systems connect to
    127.0.0.1 for them.
    """
    if is_address(host):
        return True
    last = host.removesuffix(".").rpartition(".")[2]
    return len(host) <= 254 and bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(last)


def _scope(ip: _Address, own: Collection[_Address]) -> AddressScope:
    if ip.is_loopback or ip.is_unspecified or ip in own:  # 0.0.0.0 connects to this machine, too
        return AddressScope.THIS_MACHINE
    if any(ip in network for network in _SPECIAL):
        return AddressScope.SPECIAL
    if isinstance(ip, ipaddress.IPv4Address):
        return _range_scope(ip)
    if ip in _NAT64:
        return _scope(_last_32_bits(ip), own)
    scope = _range_scope(ip) if ip in _UNICAST or ip.is_private else AddressScope.SPECIAL
    if int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return max(scope, _scope(_last_32_bits(ip), own))
    return scope


def _range_scope(ip: _Address) -> AddressScope:
    is_site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    if ip.is_link_local or ip.is_multicast or ip.is_reserved or is_site_local:
        return AddressScope.SPECIAL
    is_public = ip.is_global and ip not in _DOCUMENTATION
    return AddressScope.PUBLIC if is_public else AddressScope.PRIVATE


def _last_32_bits(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


# ------------------------------------------------------------------ the policy of one transfer


class Requester(msgspec.Struct, frozen=True):
    """The client of a transfer. ``server_port``: this server's port that it used; 0 if unknown."""

    is_local: bool = False
    """A program on this machine, not a proxy for others."""
    server_port: int = 0


LOCAL_REQUESTER = Requester(is_local=True)


def resolve_host(host: str, port: int) -> list[str]:
    """Addresses from the system's resolver. Blocks. :raises OSError: the name does not exist."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:  # a label is empty, or has more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "the name cannot be resolved") from None
    return [str(address[0]) for *_, address in infos]


def scope_of(address: str) -> AddressScope:
    """The scope for this machine, with its interfaces. Takes a millisecond."""
    return address_scope(address, interface_addresses())


class Network(msgspec.Struct, frozen=True):
    """``trusted``: registries of the operator, ``host`` or ``host:port``."""

    trusted: frozenset[str] = frozenset()
    resolve_host: Callable[[str, int], list[str]] = resolve_host
    scope_of: Callable[[str], AddressScope] = scope_of

    def find(self, host: str, port: int) -> list[tuple[str, AddressScope]]:
        """The addresses of ``host``. Blocks. :raises OSError: the name does not exist."""
        addresses = [host] if is_address(host) else self.resolve_host(host, port)
        return [(address, self.scope_of(address)) for address in addresses[:MAX_ADDRESSES]]


DEFAULT_NETWORK = Network()


class AddressPolicy(AbstractResolver):
    """The resolver of one transfer. It resolves only hosts that :meth:`allow` has accepted."""

    def __init__(
        self,
        registry: URL,
        requester: Requester,
        network: Network,
        *,
        proxies: Collection[str] = (),
        threads: Executor | None = None,
    ) -> None:
        """``registry``: its origin. ``proxies``: hosts of configured proxies. ``threads`` run the
        system's resolver.
        """
        self._registry = registry
        self._requester = requester
        self._network = network
        self._is_trusted = _is_trusted(registry, network.trusted)
        self._proxies = proxies
        self._threads = threads
        self._resolving = asyncio.Lock()
        self._registry_addresses: list[str] | None = None
        self._registry_scope = AddressScope.PUBLIC
        self._allowed: dict[str, list[str]] = {}

    @property
    def is_confined(self) -> bool:
        """Whether the registry is not public and not trusted."""
        return self._registry_scope > AddressScope.PUBLIC and not self._is_trusted

    async def allow(self, url: URL, *, is_proxied: bool = False) -> None:
        """Permit :meth:`resolve` the permitted addresses of ``url``.

        :raises PermanentError: no address is permitted.
        :raises OSError: the name does not exist, or did not resolve in :data:`RESOLVE_TIMEOUT_S`.
        """
        host = url.raw_host or ""
        if not is_unambiguous(host):
            raise PermanentError(f"{host} is neither a host name nor an address in usual notation")
        async with self._resolving:
            if self._registry_addresses is None:
                await self._resolve_registry(is_proxied=is_proxied)
        own = self._registry_addresses or []
        if host == self._registry.raw_host and (is_proxied or host in self._allowed):
            permitted = [(address, self._registry_scope) for address in own]
        else:
            nearest = AddressScope.THIS_MACHINE if self._is_trusted else AddressScope.PRIVATE
            limit = min(self._registry_scope, nearest)
            found = await self._find(url, is_proxied=is_proxied)
            permitted = [each for each in found if each[0] in own or each[1] <= limit]
        if not permitted:
            raise AddressNotAllowed(host)
        is_server = url.port == self._requester.server_port
        if is_server and AddressScope.THIS_MACHINE in dict(permitted).values():
            raise PermanentError(f"{host}:{url.port} is this server itself")
        if not is_proxied:
            self._allowed[host] = [address for address, _ in permitted]

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # part of the contract
    ) -> list[ResolveResult]:
        """:raises OSError: unknown proxy. :raises PermanentError: ``host`` was not allowed."""
        addresses = self._allowed.get(host)
        if addresses is None and host in self._proxies:
            addresses = await self._run_in_thread(self._network.resolve_host, host, port)
        if addresses is None:
            raise AddressNotAllowed(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to release."""

    async def _resolve_registry(self, *, is_proxied: bool) -> None:
        """Set the registry's addresses for the whole transfer."""
        host = self._registry.raw_host or ""
        found = await self._find(self._registry, is_proxied=is_proxied)
        scope = min(scope for _, scope in found)
        if self._is_trusted:
            limit = AddressScope.SPECIAL
        else:
            limit = AddressScope.THIS_MACHINE if self._requester.is_local else AddressScope.PUBLIC
        if scope > limit:
            raise RegistryNotAllowed(host)
        addresses = [address for address, each in found if each == scope]
        if not is_proxied:
            self._allowed[host] = addresses
        self._registry_addresses, self._registry_scope = addresses, scope

    async def _find(self, url: URL, *, is_proxied: bool) -> list[tuple[str, AddressScope]]:
        """Addresses with their scopes; a name resolved by a proxy stands for its addresses."""
        host = url.raw_host or ""
        if is_proxied and not is_address(host):
            return [(host, _name_scope(host))]
        return await self._run_in_thread(self._network.find, host, url.port or 0)

    async def _run_in_thread(self, call: Callable[[str, int], T], host: str, port: int) -> T:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, call, host, port)


class AddressNotAllowed(PermanentError):
    def __init__(self, host: str) -> None:
        super().__init__(f"the registry leads to a private address ({host}), which is not allowed")


class RegistryNotAllowed(PermanentError):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} has an address that this client may not name"
            " (OLLAMA_ASYNC_TRUSTED_REGISTRIES of the server could allow it)"
        )


def _is_trusted(registry: URL, trusted: Collection[str]) -> bool:
    host = (registry.raw_host or "").lower().removesuffix(".")
    return host in trusted or f"{host}:{registry.port}" in trusted


def _name_scope(host: str) -> AddressScope:
    if is_loopback_host(host):
        return AddressScope.THIS_MACHINE
    name = f".{host.lower().removesuffix('.')}"
    is_local = name.count(".") == 1 or name.endswith(_LOCAL_SUFFIXES)
    return AddressScope.PRIVATE if is_local else AddressScope.PUBLIC
