"""The token of one repository: asked for when the registry wants one, signed with our key.

A registry says where its tokens are given out. If that is another host, we ask there as anybody
could, without a signature: else a registry of somebody's could name the host of another one, have
us sign for that, and be given the token that we are known by there. What it gets now is a guest's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

import msgspec
from yarl import URL

from ollama_async.core.threads import in_thread
from ollama_async.registry.challenge import Challenge
from ollama_async.registry.errors import Refused
from ollama_async.registry.key import Key, load_key

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
            key = await in_thread(load_key, self._key_path, threads=self._threads)
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
