"""Requests to a registry: redirects, tokens and refusals are dealt with, an answer comes out.

Credentials go to the registry's own origin and nowhere else; the addresses that redirects lead to
must be allowed by :mod:`.address_policy` and are never less protected than the own ones of the
registry. What went wrong is told in our words (:mod:`.errors`), because the answer may be that of
another host.
"""

from __future__ import annotations

import asyncio
import platform
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from yarl import URL

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.registry.address_policy import Asker, Surroundings, Vicinity, is_loopback
from ollama_async.registry.auth import DENIED, Tokens
from ollama_async.registry.errors import (
    COMPLAINT_BYTES,
    Failure,
    NotThere,
    Refused,
    Transient,
    as_failures,
    retry_after_s,
    said,
)
from ollama_async.registry.repository import Endpoint
from ollama_async.registry.transfer_policy import Pace

CONNECT_TIMEOUT_S = 30.0
MOST_REDIRECTS = 10
SMALL_BYTES = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429})

Body = AsyncIterable[bytes]

USER_AGENT = (
    f"ollama/{OLLAMA_VERSION} ({platform.machine()} {platform.system().lower()})"
    f" ollama-async/{__version__}"
)


class Transport:
    """The connections of one transfer with one repository. Use it as a context."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        asker: Asker,
        surroundings: Surroundings,
        key_path: Path,
        stall_s: float,
        threads: Executor,
    ) -> None:
        """``stall_s``: how long a connection may be silent. ``threads`` do what blocks."""
        self.endpoint = endpoint
        self._stall_s = stall_s
        self.tokens = Tokens(endpoint.base, key_path, self._small, threads)
        proxies = [proxy.host or "" for scheme in ("http", "https") if (proxy := _proxy(scheme))]
        self._vicinity = Vicinity(
            endpoint.base, asker, surroundings, proxies=proxies, threads=threads
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._vicinity, use_dns_cache=False, limit=0),
            timeout=_timeout(stall_s),
            skip_auto_headers=("Content-Type",),  # what the library guesses, a signature may forbid
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody gets to inflate anything here
        )

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @asynccontextmanager
    async def get(
        self, url: URL, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, 200 or 206, from wherever ``url`` leads. Read it with :meth:`pieces`.

        :raises Refused: for good; :class:`NotThere` for 404.
        :raises Transient: for now: 429, 5xx, no connection, a broken or silent one.
        """

        async def ask() -> aiohttp.ClientResponse:
            return await self._follow(url, headers or {})

        response = await self._authorized(ask)
        try:
            if response.status not in {200, 206}:
                raise await self._complaint(response)
            yield response
        finally:
            response.release()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: URL,
        headers: dict[str, str] | None = None,
        body: Body | bytes | None = None,
        *,
        answer_s: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer from exactly there, below 400: a redirect is for the caller to understand.

        ``body`` is iterated anew when a token has expired; it is given up if nobody takes a piece
        of it for as long as a connection may be silent. ``answer_s``: how long the answer may take
        after it, where that is not the time.

        :raises Refused: for good; :class:`NotThere` for 404.
        :raises Transient: as :meth:`get`.
        """

        async def ask() -> aiohttp.ClientResponse:
            ours = (headers or {}) | self._credentials(url)
            return await self._send(method, url, ours, body, answer_s)

        response = await self._authorized(ask)
        try:
            if response.status >= 400:
                raise await self._complaint(response)
            yield response
        finally:
            response.release()

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; the time that its reader takes for itself does not count.

        :raises Transient: it breaks off, or too little comes for too long (see :class:`.Pace`).
        """
        pace = Pace(self._stall_s)
        clock = asyncio.get_running_loop().time
        with as_failures(response.method, response.url):
            while True:
                asked_at = clock()
                piece = await self._piece(response)
                if not piece:
                    return
                pace.came(len(piece), clock() - asked_at)
                yield piece

    async def _piece(self, response: aiohttp.ClientResponse) -> bytes:
        """The next of the body, b"" after the last.

        The library's own limit is of silence; bytes that are none of the body, such as a chunk's
        extensions, may come for ever.
        """
        try:
            async with asyncio.timeout(self._stall_s):
                return await response.content.readany()
        except TimeoutError as error:
            raise aiohttp.SocketTimeoutError from error

    async def read_small(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        """:raises Refused: the body is larger. :raises Transient: as :meth:`pieces`."""
        body = bytearray()
        async with aclosing(self.pieces(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit_bytes:
                    raise Refused(f"the answer is larger than {limit_bytes} bytes")
        return bytes(body)

    def target(self, url: URL, location: str) -> URL:
        """Where the answer from ``url`` leads. :raises Refused: it makes no sense, or to http."""
        try:
            target = url.join(URL(location, encoded=True)).with_user(None)
            is_usable = target.scheme in {"http", "https"} and bool(target.host)
        except ValueError:
            is_usable, target = False, url
        is_plain = location.isascii() and location.isprintable() and " " not in location
        if not location or not is_plain or not is_usable:
            raise Refused("the registry redirects to an address that makes no sense")
        if target.scheme == "http" and self.endpoint.base.scheme == "https":
            raise Refused(f"the registry redirects from https to http ({target.host})")
        return target

    def session(self, url: URL, location: str) -> URL:
        """Where an upload goes on. It stays with the registry, if that is not a public one.

        :raises Refused: as :meth:`target`.
        """
        target = self.target(url, location)
        if self._vicinity.is_confined and not self._is_home(target):
            raise Refused(f"the registry sends the upload to another server ({target.host})")
        return target

    async def _authorized(
        self, ask: Callable[[], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        """Ask; if the registry wants a token, or another one, get it and ask again, once."""
        token = self.tokens.current
        response = await ask()
        if response.status != 401 or not self._is_home(response.url):
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        response.release()
        await self.tokens.renew(token, challenge)
        response = await ask()
        if response.status == 401 and self._is_home(response.url):
            response.release()
            raise Refused(DENIED)
        return response

    async def _follow(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        for _ in range(MOST_REDIRECTS):
            response = await self._send("GET", url, headers | self._credentials(url))
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.release()
            url = self.target(url, location)
        raise Refused(f"stopped after {MOST_REDIRECTS} redirects")

    def _is_home(self, url: URL) -> bool:
        return url.origin() == self.endpoint.base

    def _credentials(self, url: URL) -> dict[str, str]:
        token = self.tokens.current if self._is_home(url) else ""
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _send(
        self,
        method: str,
        url: URL,
        headers: dict[str, str],
        body: Body | bytes | None = None,
        answer_s: float | None = None,
    ) -> aiohttp.ClientResponse:
        answer_s = self._stall_s if answer_s is None else answer_s
        with as_failures(method, url):
            proxy = _proxy(url.scheme, url.host or "")
            await self._vicinity.admit(url, is_proxied=proxy is not None)
            async with asyncio.timeout(CONNECT_TIMEOUT_S + answer_s) as limit:
                data: bytes | _Flow | None
                if body is None or isinstance(body, bytes):
                    data = body
                else:
                    data = _Flow(body, limit, self._stall_s, answer_s)
                return await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=_timeout(answer_s),
                )

    async def _small(self, url: URL, authorization: str) -> bytes | None:
        """A small body from exactly there, for :class:`Tokens`; None if it is not for us."""
        headers = {"Authorization": authorization} if authorization else {}
        response = await self._send("GET", url, headers)
        try:
            if response.status in {400, 401, 403}:
                return None
            if response.status != 200:
                raise await self._complaint(response)
            return await self.read_small(response, SMALL_BYTES)
        finally:
            response.release()

    async def _complaint(self, response: aiohttp.ClientResponse) -> Failure:
        status = response.status
        if status == 404:
            return NotThere()
        is_home = self._is_home(response.url)
        body = b""
        with suppress(Failure):  # too long, or broken off: the number says enough
            body = await self.read_small(response, COMPLAINT_BYTES) if is_home else b""
        text = said(status, body)
        if status in _LATER or status >= 500:
            return Transient(text, after_s=retry_after_s(response.headers.get("Retry-After", "")))
        if not is_home:
            return Transient(text)  # a link that has expired; the registry makes a new one
        return Refused(text, status=status)


class _Flow:
    """A body on its way: ``limit``, that of its request, is ``stall_s`` from the last piece, and
    ``answer_s`` from the end.

    An iterator and not a generator, which nobody would close when the answer comes early.
    """

    def __init__(self, body: Body, limit: asyncio.Timeout, stall_s: float, answer_s: float) -> None:
        self._pieces = aiter(body)
        self._limit = limit
        self._stall_s = stall_s
        self._answer_s = answer_s

    def __aiter__(self) -> _Flow:
        return self

    async def __anext__(self) -> bytes:
        self._extend(self._stall_s)
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._extend(self._answer_s)
            raise

    def _extend(self, lasts_s: float) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the answer came before the end of the body
            self._limit.reschedule(now + lasts_s)


def _timeout(silence_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None,
        connect=CONNECT_TIMEOUT_S,
        sock_connect=CONNECT_TIMEOUT_S,
        sock_read=silence_s,
    )


def _proxy(scheme: str, host: str = "") -> URL | None:
    """What the environment names for addresses of ``scheme``, and for this host.

    None for this machine: to a proxy, that name means another one.

    :raises Refused: it makes no sense.
    """
    named = urllib.request.getproxies().get(scheme)
    if not named or (host and (is_loopback(host) or urllib.request.proxy_bypass(host))):
        return None
    try:
        return URL(named if "://" in named else f"http://{named}")
    except ValueError:
        raise Refused(f"the environment's {scheme}_proxy is no address") from None
