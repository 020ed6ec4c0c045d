"""IP addresses as sockets, headers and URLs write them."""

from __future__ import annotations

import ipaddress


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Without zone; an IPv4-mapped address is the IPv4 address. :raises ValueError: it is none."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip
