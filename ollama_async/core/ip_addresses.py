"""IP addresses as sockets, headers and URLs write them."""

from __future__ import annotations

import ipaddress


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """``text`` without its zone. An IPv4-mapped address becomes the IPv4 address.

    :raises ValueError: not an IP address.
    """
    ip = ipaddress.ip_address(text.partition("%")[0])
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address; false for names."""
    try:
        return parse_ip(host).is_loopback
    except ValueError:
        return False
