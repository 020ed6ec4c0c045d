"""The key pair by which registries know this machine: Ollama's own, ``~/.ollama/id_ed25519``."""

from __future__ import annotations

import base64
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ollama_async.registry.errors import Refused

_log = logging.getLogger(__name__)

_LIMIT_BYTES = 16 << 10


def default_path() -> Path:
    return Path(os.path.expanduser("~")) / ".ollama" / "id_ed25519"  # noqa: PTH111  # never raises


class Key:
    """Signs. ``public`` is the base64 in the middle of the line ``ssh-ed25519 AAAA…``."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = _public_line(private).split()[1].decode()

    def sign(self, data: bytes) -> str:
        """``PUBLIC:SIGNATURE``, both in base64: what goes into the header."""
        signature = base64.b64encode(self._private.sign(data)).decode()
        return f"{self.public}:{signature}"


def load_key(path: Path) -> Key:
    """The key at ``path``, made (0600, its folder 0700) if there is none. Blocks.

    :raises Refused: the file cannot be read or written, or is no such key. Where it is stays in the
        log.
    """
    try:
        for _ in range(2):
            try:
                return Key(_read(path))
            except FileNotFoundError:
                _make(path)
        return Key(_read(path))
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        reason = "it is no ed25519 key of OpenSSH without a password"
    _log.warning("the key %s cannot be used: %s", path, reason)
    raise Refused(f"the server's key cannot be used: {reason}")


def _read(path: Path) -> Ed25519PrivateKey:
    with open(path, "rb", opener=_open_at_once) as file:
        private = serialization.load_ssh_private_key(file.read(_LIMIT_BYTES), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("another kind of key")  # noqa: TRY004  # wrong content, not a wrong call
    return private


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would wait for its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _make(path: Path) -> None:
    """Write both files; a key that somebody else makes at the same time stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".id-")  # 0600 from the beginning
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # there is a descriptor already
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
            path.with_suffix(".pub").write_bytes(_public_line(private) + b"\n")
    finally:
        os.unlink(name)  # noqa: PTH108  # beside what mkstemp gave


def _public_line(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
