"""Whether a request comes from a program of our own user on this machine.

Such a program can read every file that we can, so it may have us read one for it. Being on this
machine alone does not say so: a reverse proxy is, too, and stands for anybody. What is asked is the
kernel, which knows whose the other end of a local connection is.

No, in doubt: for what a browser sends (any page may be behind it, and says so with an ``Origin``),
for what was passed on (and says so), and where ``/proc`` tells nothing.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

from aiohttp import web

_PASSED_ON = ("Origin", "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_TABLES = ("tcp", "tcp6")
_LOCAL, _REMOTE, _USER = 1, 2, 7

_Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def is_same_user(request: web.Request, *, tables: Path = Path("/proc/net")) -> bool:
    """See the module. Reads a table of all connections of this machine: blocks for a moment."""
    transport = request.transport
    if transport is None or any(name in request.headers for name in _PASSED_ON):
        return False
    peer = _address(transport.get_extra_info("peername"))
    own = _address(transport.get_extra_info("sockname"))
    if peer is None or own is None or not peer[0].is_loopback:
        return False
    return _user(tables, peer, own) == os.geteuid()


def _user(tables: Path, local: _Address, remote: _Address) -> int | None:
    """Whose the socket is that is bound to ``local`` and connected to ``remote``."""
    for name in _TABLES:
        try:
            rows = (tables / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            words = row.split()
            if _decoded(words[_LOCAL]) == local and _decoded(words[_REMOTE]) == remote:
                return int(words[_USER])
    return None


def _address(name: object) -> _Address | None:
    """What a socket says of itself: ``(host, port, …)``, or nothing of use."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    try:
        return _plain(ipaddress.ip_address(name[0].partition("%")[0])), name[1]
    except ValueError:
        return None


def _decoded(text: str) -> _Address:
    """``0100007F:2CAA``: words of 32 bits as this machine stores them, in hex, and the port."""
    host, _, port = text.partition(":")
    raw = bytes.fromhex(host)
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return _plain(ipaddress.ip_address(raw)), int(port, 16)


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address on an IPv6 socket is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
