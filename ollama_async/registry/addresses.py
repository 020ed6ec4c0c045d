"""How near an IP address is to this machine, whatever notation or tunnel it is wrapped in.

An address that nobody assigned for hosts on the internet is never public, and one that clouds use
for their secrets is special even where its range is an ordinary one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from enum import IntEnum

import psutil

from ollama_async.core.ip_addresses import parse_ip

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
