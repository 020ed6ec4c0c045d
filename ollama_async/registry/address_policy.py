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
import socket
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from typing import TypeVar

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ollama_async.registry.addresses import (
    Nearness,
    is_address,
    is_loopback,
    is_sound,
    nearness,
    own_addresses,
)
from ollama_async.registry.errors import Refused

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
