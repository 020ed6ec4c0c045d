"""HTTP to one registry: redirects, tokens, error responses, timeouts.

Credentials go only to the registry's own origin. :mod:`.address_policy` must permit the target of a
redirect, which never leads from https to http. Error texts are our own (:mod:`.errors`), because
another host may have sent the response.
"""

from __future__ import annotations

import asyncio
import platform
import urllib.request
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
)
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from yarl import URL

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.core.threads import run_in_thread
from ollama_async.registry.address_policy import AddressPolicy, Network, Requester, is_loopback_host
from ollama_async.registry.auth import DENIED, TokenAuth
from ollama_async.registry.errors import (
    ERROR_BODY_BYTES,
    NotInRegistry,
    PermanentError,
    TransferError,
    TransientError,
    describe_status,
    parse_retry_after,
    translate_errors,
)
from ollama_async.registry.repository import Repository
from ollama_async.registry.transfer_policy import MinimumThroughput, TransferPolicy

T = TypeVar("T")

CONNECT_TIMEOUT_S = 30.0
MAX_REDIRECTS = 10
TOKEN_BODY_BYTES = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRYABLE = frozenset({408, 425, 429})

Body = AsyncIterable[bytes]

USER_AGENT = (
    f"ollama/{OLLAMA_VERSION} ({platform.machine()} {platform.system().lower()})"
    f" ollama-async/{__version__}"
)


class TransferContext(msgspec.Struct, frozen=True):
    """Shared by all transfers of one kind. ``key_path``: the key pair that identifies us to
    registries. ``threads`` run blocking calls.
    """

    threads: Executor
    policy: TransferPolicy
    key_path: Path
    network: Network

    async def run_in_thread(
        self, call: Callable[..., T], *args: Any, undo: Callable[[T], object] | None = None
    ) -> T:
        """See :func:`ollama_async.core.threads.run_in_thread`."""
        return await run_in_thread(call, *args, undo=undo, threads=self.threads)


class Transport:
    """The connections of one transfer to one repository. An async context manager."""

    def __init__(
        self, repository: Repository, requester: Requester, context: TransferContext
    ) -> None:
        self.repository = repository
        self.context = context
        self._stall_s = context.policy.stall_s
        self._auth = TokenAuth(
            repository.base, context.key_path, self._fetch_token, context.threads
        )
        proxies = [proxy.host or "" for scheme in ("http", "https") if (proxy := _proxy(scheme))]
        self._addresses = AddressPolicy(
            repository.base, requester, context.network, proxies=proxies, threads=context.threads
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._addresses, use_dns_cache=False, limit=0),
            timeout=_timeout(self._stall_s),
            skip_auto_headers=("Content-Type",),  # a guessed type could break a signature
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a compressed response could inflate to any size
        )

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def get(
        self, url: URL, headers: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Follow redirects to a 200 or 206. Read the body with :meth:`pieces`.

        :raises PermanentError: refused; :class:`NotInRegistry` for 404.
        :raises TransientError: 429, 5xx, or a failed, broken or stalled connection.
        """
        return self._authorized({200, 206}, lambda: self._follow_redirects(url, headers or {}))

    def send(
        self,
        method: str,
        url: URL,
        headers: dict[str, str] | None = None,
        body: Body | bytes | None = None,
        *,
        response_s: float | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A response below 400 from ``url`` itself; does not follow redirects.

        ``body`` is iterated anew when a token has expired. The request fails if nothing of it can
        be sent for the stall time. ``response_s``: the timeout of the response after the body, by
        default the stall time.

        :raises PermanentError: refused; :class:`NotInRegistry` for 404.
        :raises TransientError: as :meth:`get`.
        """

        def request() -> Awaitable[aiohttp.ClientResponse]:
            ours = (headers or {}) | self._credentials(url)
            return self._request(method, url, ours, body, response_s)

        return self._authorized(range(400), request)

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it is received. The caller's own time does not count as a stall.

        :raises TransientError: it is cut off, or below :class:`.MinimumThroughput`.
        """
        throughput = MinimumThroughput(self._stall_s)
        clock = asyncio.get_running_loop().time
        with translate_errors(response.method, response.url):
            while True:
                began_s = clock()
                try:
                    # The library restarts its own timeout at any byte, even outside the body, such
                    # as endless extensions of a chunk.
                    async with asyncio.timeout(self._stall_s):
                        piece = await response.content.readany()
                except TimeoutError as error:
                    raise aiohttp.SocketTimeoutError from error
                if not piece:
                    return
                throughput.received(len(piece), clock() - began_s)
                yield piece

    async def read_small(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        """:raises PermanentError: the body is larger. :raises TransientError: as :meth:`pieces`."""
        body = bytearray()
        async with aclosing(self.pieces(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit_bytes:
                    raise PermanentError(f"the response is larger than {limit_bytes} bytes")
        return bytes(body)

    def redirect_target(self, url: URL, location: str) -> URL:
        """The target of a ``Location`` header in the response of ``url``.

        :raises PermanentError: it is invalid, or leads from https to http.
        """
        try:
            target = url.join(URL(location, encoded=True)).with_user(None)
            is_usable = target.scheme in {"http", "https"} and bool(target.host)
        except ValueError:
            is_usable, target = False, url
        is_plain = location.isascii() and location.isprintable() and " " not in location
        if not location or not is_plain or not is_usable:
            raise PermanentError("the registry redirects to an invalid address")
        if target.scheme == "http" and self.repository.base.scheme == "https":
            raise PermanentError(f"the registry redirects from https to http ({target.host})")
        return target

    def upload_location(self, url: URL, location: str) -> URL:
        """As :meth:`redirect_target`, for an upload: never another host, unless the registry is
        public or trusted.
        """
        target = self.redirect_target(url, location)
        if self._addresses.is_confined and not self._is_registry(target):
            raise PermanentError(f"the registry sends the upload to another server ({target.host})")
        return target

    @asynccontextmanager
    async def _authorized(
        self, expected: Container[int], request: Callable[[], Awaitable[aiohttp.ClientResponse]]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request; after a 401 of the registry, once more with a new token."""
        token = self._auth.token
        response = await request()
        if response.status == 401 and self._is_registry(response.url):
            challenge = response.headers.get("WWW-Authenticate", "")
            response.release()
            await self._auth.renew(token, challenge)
            response = await request()
        try:
            if response.status == 401 and self._is_registry(response.url):
                raise PermanentError(DENIED)
            if response.status not in expected:
                raise await self._error(response)
            yield response
        finally:
            response.release()

    async def _follow_redirects(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS):
            response = await self._request("GET", url, headers | self._credentials(url))
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.release()
            url = self.redirect_target(url, location)
        raise PermanentError(f"stopped after {MAX_REDIRECTS} redirects")

    def _is_registry(self, url: URL) -> bool:
        return url.origin() == self.repository.base

    def _credentials(self, url: URL) -> dict[str, str]:
        token = self._auth.token if self._is_registry(url) else ""
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _request(
        self,
        method: str,
        url: URL,
        headers: dict[str, str],
        body: Body | bytes | None = None,
        response_s: float | None = None,
    ) -> aiohttp.ClientResponse:
        response_s = self._stall_s if response_s is None else response_s
        with translate_errors(method, url):
            proxy = _proxy(url.scheme, url.host or "")
            await self._addresses.allow(url, is_proxied=proxy is not None)
            async with asyncio.timeout(CONNECT_TIMEOUT_S + response_s) as limit:
                data: bytes | _TimedBody | None
                if body is None or isinstance(body, bytes):
                    data = body
                else:
                    data = _TimedBody(body, limit, self._stall_s, response_s)
                return await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=_timeout(response_s),
                )

    async def _fetch_token(self, url: URL, authorization: str) -> bytes | None:
        """For :class:`.TokenAuth`: a small body from ``url`` itself; None if access is denied."""
        headers = {"Authorization": authorization} if authorization else {}
        response = await self._request("GET", url, headers)
        try:
            if response.status in {400, 401, 403}:
                return None
            if response.status != 200:
                raise await self._error(response)
            return await self.read_small(response, TOKEN_BODY_BYTES)
        finally:
            response.release()

    async def _error(self, response: aiohttp.ClientResponse) -> TransferError:
        status = response.status
        if status == 404:
            return NotInRegistry()
        is_registrys = self._is_registry(response.url)
        body = b""
        with suppress(TransferError):  # too long or cut off: report only the status
            body = await self.read_small(response, ERROR_BODY_BYTES) if is_registrys else b""
        text = describe_status(status, body)
        if status in _RETRYABLE or status >= 500:
            pause_s = parse_retry_after(response.headers.get("Retry-After", ""))
            return TransientError(text, retry_after_s=pause_s)
        if not is_registrys:
            return TransientError(text)  # a link that has expired; the registry makes a new one
        return PermanentError(text, status=status)


class _TimedBody:
    """A request body that moves its request's deadline ``limit``: to ``stall_s`` from the last
    piece, and to ``response_s`` from the end.

    Not a generator: it would not be closed when the response comes early.
    """

    def __init__(
        self, body: Body, limit: asyncio.Timeout, stall_s: float, response_s: float
    ) -> None:
        self._pieces = aiter(body)
        self._limit = limit
        self._stall_s = stall_s
        self._response_s = response_s

    def __aiter__(self) -> _TimedBody:
        return self

    async def __anext__(self) -> bytes:
        self._extend(self._stall_s)
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._extend(self._response_s)
            raise

    def _extend(self, by_s: float) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the response came before the end of the body
            self._limit.reschedule(now + by_s)


def _timeout(stall_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None,
        connect=CONNECT_TIMEOUT_S,
        sock_connect=CONNECT_TIMEOUT_S,
        sock_read=stall_s,
    )


def _proxy(scheme: str, host: str = "") -> URL | None:
    """The environment's proxy for addresses of ``scheme``, and for this host.

    None for names of this machine, which mean another one to a proxy.

    :raises PermanentError: the proxy's URL is invalid.
    """
    named = urllib.request.getproxies().get(scheme)
    if not named or (host and (is_loopback_host(host) or urllib.request.proxy_bypass(host))):
        return None
    try:
        return URL(named if "://" in named else f"http://{named}")
    except ValueError:
        raise PermanentError(f"the environment's {scheme}_proxy is not a URL") from None
