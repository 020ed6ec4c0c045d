"""What the kernel knows about the client at the other end of a connection.

A transport notices that its client has left only while it reads, and reading is paused while
nobody takes what was read: a body, or requests that wait behind the one being served. The kernel
knows at any time, and can be told to find out about clients that vanish without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket

SILENT_LIMIT_S = 60
"""A client whose machine acknowledges nothing for so long, or takes nothing of what waits for it,
has lost its connection. As long as a client may leave a stream unread."""

_PROBED_AFTER_S = 30
_PROBED_EVERY_S = 10

_CLOSE, _CLOSE_WAIT = 7, 8
"""Of Linux's numbers of a connection's state, the first byte of its ``struct tcp_info``."""


class Peer(enum.Enum):
    """``HALF_CLOSED``: the client has sent its last byte; it may still read, or have left."""

    CONNECTED = enum.auto()
    HALF_CLOSED = enum.auto()
    RESET = enum.auto()


def enable_probes(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end the connection of a client that vanishes, whether we send or wait."""
    sock = transport.get_extra_info("socket")
    if not _is_tcp(sock):
        return
    with contextlib.suppress(OSError):  # the client has left already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBED_AFTER_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBED_EVERY_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_LIMIT_S * 1000)


def peer_state(transport: asyncio.BaseTransport) -> Peer:
    """Costs one system call or two, whatever waits to be read."""
    sock = transport.get_extra_info("socket")
    if not _is_tcp(sock):
        return Peer.CONNECTED
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # the descriptor is closed
        return Peer.RESET
    return {_CLOSE: Peer.RESET, _CLOSE_WAIT: Peer.HALF_CLOSED}.get(state, Peer.CONNECTED)


def _is_tcp(sock: socket.socket | None) -> bool:
    return sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
