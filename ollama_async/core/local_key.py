"""The local key: proves to the server that a command runs as the server's user on its machine.

Such a command may have the server read files by path. The key is in a file that only the server's
user can read. A peer address or user id would prove less, since port forwards and reverse proxies
act for other users.

The key is never sent. The proof is an HMAC that is valid for one address and port, so another
server that receives it cannot reuse it.
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
    """The key file is not private, or not a key; the text explains why."""


def open_key(folder: Path) -> bytes:
    """The key in ``folder``, created if missing. Blocks.

    :raises KeyUnusable: others could read or change it.
    :raises OSError: it cannot be read or written.
    """
    with contextlib.suppress(FileNotFoundError):
        return read_key(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        partial.touch(0o600, exist_ok=False)
        partial.write_bytes(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another server created it first
            os.link(partial, folder / FILE)
    finally:
        partial.unlink(missing_ok=True)
    return read_key(folder)


def read_key(folder: Path) -> bytes:
    """The existing key. Blocks.

    :raises FileNotFoundError: there is no key.
    :raises KeyUnusable: others could read or change it.
    :raises OSError: it cannot be read.
    """
    path = folder / FILE
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise KeyUnusable(f"{path} is not a file of this user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise KeyUnusable(f"{path} can be read by others: chmod 600, or delete it")
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise KeyUnusable(f"{path} does not contain a key: delete it")
    return key


def proof(key: bytes, host: str, port: int) -> str:
    """The value of :data:`HEADER` for the server that listens on ``host`` (an IP address).

    :raises ValueError: ``host`` is not an IP address.
    """
    where = f"{parse_ip(host)} {port}".encode()
    return hmac.new(key, where, hashlib.sha256).hexdigest()


def is_valid_proof(value: str, key: bytes, host: str, port: int) -> bool:
    """Whether ``value``, which may have undecodable bytes, is the proof for this server."""
    return hmac.compare_digest(value.encode(errors="replace"), proof(key, host, port).encode())
