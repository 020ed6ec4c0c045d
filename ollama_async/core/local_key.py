"""How a command of the server's own user on the same machine shows that it is one.

Such a command may have the server read files by their paths. It knows a key that the server keeps
in a file that only its user can read. To come from this machine, or even from a process of this
user, says less: a port forward or a reverse proxy does, too, and stands for anybody.

What goes over the wire is not the key but a proof that holds for one address and port, so that
another server that gets it by mistake cannot use it here.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from ollama_async.core.ip_addresses import parse_ip

HEADER = "Ollama-Async-Local"
FILE = "local-key"
_KEY_BYTES = 32


class KeyUnusable(Exception):
    """The file is not one that only our user can read and change; the text says why."""


def open_key(folder: Path) -> bytes:
    """The key of the servers that share ``folder``; made if there is none. Blocks.

    :raises KeyUnusable: see there. :raises OSError: it cannot be read or written.
    """
    with contextlib.suppress(FileNotFoundError):
        return read_key(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        partial.touch(0o600, exist_ok=False)
        partial.write_bytes(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another server was faster
            os.link(partial, folder / FILE)
    finally:
        partial.unlink(missing_ok=True)
    return read_key(folder)


def read_key(folder: Path) -> bytes:
    """:raises FileNotFoundError: there is none. :raises KeyUnusable: see there. :raises OSError:"""
    path = folder / FILE
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise KeyUnusable(f"{path} is not a file of this user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise KeyUnusable(f"{path} can be read by others: chmod 600, or delete it")
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise KeyUnusable(f"{path} holds no key: delete it")
    return key


def proof(key: bytes, host: str, port: int) -> str:
    """What :data:`HEADER` says to the server that listens at ``host`` (an address) and ``port``.

    :raises ValueError: ``host`` is no address.
    """
    where = f"{parse_ip(host)} {port}".encode()
    return hmac.new(key, where, hashlib.sha256).hexdigest()


def is_proven(said: str, key: bytes, host: str, port: int) -> bool:
    """Whether ``said``, which may hold bytes that are no text, is the proof for this server."""
    return hmac.compare_digest(said.encode(errors="replace"), proof(key, host, port).encode())


def is_loopback(host: str) -> bool:
    """Whether a connection to or from ``host`` stays on this machine. False if it is no address."""
    try:
        return parse_ip(host).is_loopback
    except ValueError:
        return False
