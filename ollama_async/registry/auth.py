"""The token of one repository: asked for when the registry wants one, signed with our key.

A registry says where its tokens are given out. If that is another host, we ask there as anybody
could, without a signature: else a registry of somebody's could name the host of another one, have
us sign for that, and be given the token that we are known by there. What it gets now is a guest's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from ollama_async.core.threads import run_in_thread
from ollama_async.registry.errors import Refused

DENIED = "unauthorized: access denied"
_OTHER_NAMES = {
    URL("https://hf.co"): URL("https://huggingface.co"),
    URL("https://registry.ollama.ai"): URL("https://ollama.com"),
}
"""Registries whose keeper gives out the tokens under another name of its own."""
_EMPTY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Tokens:
    """``current`` is "" until a registry has asked for one.

    ``fetch`` asks an address, with a value for ``Authorization`` or "", for a small body; None: it
    is refused.
    """

    def __init__(
        self,
        base: URL,
        key_path: Path,
        fetch: Callable[[URL, str], Awaitable[bytes | None]],
        threads: Executor,
    ) -> None:
        self.current = ""
        self._base = base
        self._key_path = key_path
        self._fetch = fetch
        self._threads = threads
        self._one_at_a_time = asyncio.Lock()

    async def renew(self, stale: str, challenge: str) -> None:
        """Replace the token ``stale``, which the registry refused; once for all who were refused.

        :raises Refused: the registry wants something else, or does not know us.
        :raises Transient: it cannot say now.
        """
        async with self._one_at_a_time:
            if self.current == stale:
                self.current = await self._ask(challenge)

    async def _ask(self, header: str) -> str:
        challenge = Challenge.parse(header)
        if challenge is None:
            raise Refused(DENIED)
        try:
            url = challenge.url()
        except ValueError:
            raise Refused(DENIED) from None
        if url.scheme == "http" and self._base.scheme == "https":
            raise Refused(f"the registry wants tokens to be asked for over http ({url.host})")
        is_theirs = url.origin() in {self._base, _OTHER_NAMES.get(self._base)}
        return _token(await (self._known(url) if is_theirs else self._guest(url)))

    async def _known(self, url: URL) -> bytes:
        """What one gets whom they know by our key; if that is none of theirs, or cannot be used,
        what a guest gets.
        """
        once = {"ts": str(int(time.time())), "nonce": secrets.token_urlsafe(16)}
        signed = url.extend_query(once)
        try:
            key = await run_in_thread(load_key, self._key_path, threads=self._threads)
        except Refused as refused:
            return await self._guest(url, f"{DENIED} ({refused})")
        body = await self._fetch(signed, sign(key, signed))
        return await self._guest(url) if body is None else body

    async def _guest(self, url: URL, denied: str = DENIED) -> bytes:
        """Registries not of Ollama's kind know no signatures, but perhaps guests."""
        body = await self._fetch(url, "")
        if body is None:
            raise Refused(denied)
        return body


def sign(key: Key, url: URL) -> str:
    """The proof that we asked for exactly this, as registries of Ollama's kind want it."""
    return key.sign(f"GET,{url},{_EMPTY}".encode())


def _token(body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (ValueError, RecursionError):
        raise Refused(DENIED) from None
    token = answer.token or answer.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise Refused(DENIED)
    return token


_SCHEME = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|$)"""
)
_LONGEST = 8192


class Challenge(msgspec.Struct, frozen=True):
    realm: str
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """None: it asks for something else than a bearer's token, or makes no sense."""
        begin = _SCHEME.match(header)
        if begin is None or len(header) > _LONGEST:
            return None
        found: dict[str, str] = {}
        position = begin.end()
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found.setdefault(name.lower(), value)
            position = parameter.end()
        if not found.get("realm"):
            return None
        return cls(found["realm"], found.get("service", ""), found.get("scope", ""))

    def url(self) -> URL:
        """Where to ask for a token. :raises ValueError: the realm is no address."""
        url = URL(self.realm)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("the realm is no address")
        query = [("service", self.service)] if self.service else []
        query += [("scope", scope) for scope in self.scope.split()]
        return url.with_user(None).with_fragment(None).extend_query(query)


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
