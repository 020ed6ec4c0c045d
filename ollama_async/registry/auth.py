"""Bearer tokens of one registry: challenge, request signed with this machine's key, token.

The registry's challenge names the token service. Requests to a service on another host are not
signed, and yield anonymous tokens. Otherwise a malicious registry could name another registry's
token service and receive our token for it.

The key pair is Ollama's own, ``~/.ollama/id_ed25519``.
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
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from ollama_async.core.threads import run_in_thread
from ollama_async.registry.errors import PermanentError

_log = logging.getLogger(__name__)

DENIED = "unauthorized: access denied"
_TOKEN_SERVICES = {
    URL("https://hf.co"): URL("https://huggingface.co"),
    URL("https://registry.ollama.ai"): URL("https://ollama.com"),
}
"""Other origins of the same operator, by registry."""
_EMPTY_SHA256 = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
_KEY_LIMIT_BYTES = 16 << 10
_SCHEME = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|$)"""
)
_CHALLENGE_LIMIT = 8192


def parse_challenge(header: str) -> dict[str, str]:
    """``realm``, ``service``, ``scope``, … of ``WWW-Authenticate: Bearer realm="…",…``.

    Empty for other schemes. The first of several values counts.
    """
    scheme = _SCHEME.match(header)
    if scheme is None or len(header) > _CHALLENGE_LIMIT:
        return {}
    found: dict[str, str] = {}
    position = scheme.end()
    while parameter := _PARAMETER.match(header, position):
        name, quoted, plain = parameter.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.setdefault(name.lower(), value)
        position = parameter.end()
    return found


def token_url(challenge: Mapping[str, str]) -> URL:
    """The URL that issues tokens. :raises ValueError: the realm is not an HTTP URL."""
    url = URL(challenge.get("realm", ""))
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("the realm is not an HTTP URL")
    service = challenge.get("service")
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in challenge.get("scope", "").split()]
    return url.with_user(None).with_fragment(None).extend_query(query)


class _TokenResponse(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class TokenAuth:
    """``token`` is "" until the registry has required one.

    ``fetch`` sends a GET request with a value for ``Authorization``, or "", and returns the body;
    None if access is denied.
    """

    def __init__(
        self,
        registry: URL,
        key_path: Path,
        fetch: Callable[[URL, str], Awaitable[bytes | None]],
        threads: Executor,
    ) -> None:
        self.token = ""
        self._registry = registry
        self._key_path = key_path
        self._fetch = fetch
        self._threads = threads
        self._renewing = asyncio.Lock()

    async def renew(self, stale: str, challenge: str) -> None:
        """Replace the refused token ``stale``, once for all concurrent requests.

        :raises PermanentError: the challenge is invalid, or access is denied.
        :raises TransientError: the token service fails for now.
        """
        async with self._renewing:
            if self.token == stale:
                self.token = await self._request_token(challenge)

    async def _request_token(self, header: str) -> str:
        try:
            url = token_url(parse_challenge(header))
        except ValueError:
            raise PermanentError(DENIED) from None
        if url.scheme == "http" and self._registry.scheme == "https":
            raise PermanentError(
                f"the registry requires tokens to be requested over http ({url.host})"
            )
        is_registrys = url.origin() in {self._registry, _TOKEN_SERVICES.get(self._registry)}
        return _parse_token(await (self._signed(url) if is_registrys else self._anonymous(url)))

    async def _signed(self, url: URL) -> bytes:
        """A token for our key; an anonymous one if the key is unknown or unusable."""
        once = {"ts": str(int(time.time())), "nonce": secrets.token_urlsafe(16)}
        signed = url.extend_query(once)
        try:
            key = await run_in_thread(load_key, self._key_path, threads=self._threads)
        except PermanentError as error:
            return await self._anonymous(url, f"{DENIED} ({error})")
        # Ollama's format
        body = await self._fetch(signed, key.sign(f"GET,{signed},{_EMPTY_SHA256}".encode()))
        return await self._anonymous(url) if body is None else body

    async def _anonymous(self, url: URL, denied: str = DENIED) -> bytes:
        """Registries of other kinds ignore signatures, but may issue anonymous tokens."""
        body = await self._fetch(url, "")
        if body is None:
            raise PermanentError(denied)
        return body


def _parse_token(body: bytes) -> str:
    try:
        response = msgspec.json.decode(body, type=_TokenResponse)
    except (ValueError, RecursionError):
        raise PermanentError(DENIED) from None
    token = response.token or response.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise PermanentError(DENIED)
    return token


# ------------------------------------------------------------------ the key pair


def default_key_path() -> Path:
    return Path(os.path.expanduser("~")) / ".ollama" / "id_ed25519"  # noqa: PTH111  # never raises


class SigningKey:
    """``public`` is the base64 part of the line ``ssh-ed25519 AAAA…``."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = _public_line(private).split()[1].decode()

    def sign(self, data: bytes) -> str:
        """``PUBLIC:SIGNATURE``, both in base64: the value of the header."""
        signature = base64.b64encode(self._private.sign(data)).decode()
        return f"{self.public}:{signature}"


def load_key(path: Path) -> SigningKey:
    """The key at ``path``, created if missing (0600, its folder 0700). Blocks.

    :raises PermanentError: the file cannot be read or written, or is not such a key. The path is
        only logged.
    """
    try:
        for _ in range(2):
            try:
                return SigningKey(_read_key(path))
            except FileNotFoundError:
                _create_key(path)
        return SigningKey(_read_key(path))
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        reason = "not an OpenSSH ed25519 key without a password"
    _log.warning("the key %s cannot be used: %s", path, reason)
    raise PermanentError(f"the server's key cannot be used: {reason}")


def _read_key(path: Path) -> Ed25519PrivateKey:
    with open(path, "rb", opener=_open_nonblocking) as file:
        private = serialization.load_ssh_private_key(file.read(_KEY_LIMIT_BYTES), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("another kind of key")  # noqa: TRY004  # wrong content, not a wrong call
    return private


def _open_nonblocking(path: str, flags: int) -> int:
    """Opening a FIFO would block."""
    return os.open(path, flags | os.O_NONBLOCK)


def _create_key(path: Path) -> None:
    """Write both files, unless another process creates them at the same time."""
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
