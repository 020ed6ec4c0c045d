"""Decides which browser pages may use this server: the Origin check (CORS) and the Host check.

Both protect users whose browser runs a foreign page next to a server without API keys.

*Origin*: a page of another origin is refused unless ``OLLAMA_ORIGINS`` or Ollama's own list (local
hosts and desktop shells) names it. A request without ``Origin`` does not come from such a page.

*Host* (DNS rebinding): a page whose own name was pointed at our address has no foreign Origin, but
its name is in the ``Host`` header. Only names that such a page cannot have are accepted:

- always: none, ``localhost``, our host name, ``*.localhost``, ``*.local``, ``*.internal``, and the
  hosts of the origins in ``OLLAMA_ORIGINS``;
- listening on loopback (as Ollama): loopback and private addresses, and our own;
- listening on the network (Ollama: all): any address, since none can be rebound; and names that
  cannot be registered, as containers and routers have: without a dot, ``*.lan``, ``*.home``,
  ``*.home.arpa``, ``*.corp``, ``*.svc``, ``*.intranet``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from urllib.parse import urlsplit

import psutil
from aiohttp import hdrs, web
from multidict import CIMultiDict

from ollama_async.core.errors import Forbidden

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104  # as in Ollama's list
BUILT_IN_ORIGINS = (
    *(
        f"{scheme}://{host}{port}"
        for host in _LOCAL_HOSTS
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *(f"{shell}://*" for shell in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_NETWORK_SUFFIXES = (".lan", ".home", ".home.arpa", ".corp", ".svc", ".intranet")

_LONGEST = 512
"""Characters of a ``Host`` or ``Origin``; names in the DNS have at most 253."""
_SHOWN_CHARACTERS = 100  # of a name that is refused

_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    *("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version"),
    *("Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
    *("Helper", "Stream-Helper"),  # beyond Ollama: what Anthropic's client sends
)
_HEADERS = ",".join(
    (
        *("Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With"),
        "Openai-Beta",
        *(f"X-Stainless-{name}" for name in _STAINLESS),
        # beyond Ollama: /v1/messages from a browser
        *("X-Api-Key", "Anthropic-Version", "Anthropic-Beta"),
        "Anthropic-Dangerous-Direct-Browser-Access",
    )
)
_EXPOSED = "Request-Id,X-Request-Id,Retry-After"
"""Headers of answers that a page may read. Ollama has none of them."""
PREFLIGHT_HEADERS = CIMultiDict(
    [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", _HEADERS),
        ("Access-Control-Max-Age", "43200"),
        ("Vary", "Access-Control-Request-Method"),
        ("Vary", "Access-Control-Request-Headers"),
    ]
)
"""Of the answer to a page's ``OPTIONS``, besides :meth:`OriginPolicy.cors_headers`."""


class OriginPolicy:
    """The checks for one listening address.

    ``origins`` are validated ``OLLAMA_ORIGINS`` entries; each holds at most one ``*``.
    """

    def __init__(self, *, listen_host: str, origins: tuple[str, ...]) -> None:
        self._allows_all = "*" in origins
        patterns = [re.escape(pattern.lower()) for pattern in (*origins, *BUILT_IN_ORIGINS)]
        self._origins = re.compile("|".join(patterns).replace(r"\*", ".*"), re.DOTALL)
        self._is_local = _is_loopback(listen_host)
        name = socket.gethostname().lower()
        hosts = (urlsplit(origin).hostname for origin in origins if "*" not in origin)
        self._names = {"", "localhost", name, name.partition(".")[0], *filter(None, hosts)}
        self._addresses = _own_addresses()
        # Browsers send few distinct hosts, attackers many and long ones: a bounded cache.
        self._known_host = lru_cache(256)(self._is_allowed_host)

    def check(self, request: web.Request) -> web.Response | None:
        """Refuse foreign pages. Returns the answer to ``OPTIONS``, for which there is no handler.

        :raises Forbidden: with the variable that would allow it.
        """
        host = request.headers.get(hdrs.HOST, "")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin and not is_same_origin(origin, host):
            if not self.is_allowed_origin(origin):
                shown = origin[:_SHOWN_CHARACTERS]
                raise Forbidden(f"origin {shown!r} is not allowed; OLLAMA_ORIGINS can allow it")
            if request.method == hdrs.METH_OPTIONS:
                return web.Response(status=204, headers=PREFLIGHT_HEADERS)
        if not self.is_allowed_host(host):
            host = host[:_SHOWN_CHARACTERS]
            raise Forbidden(
                f"host {host!r} is not allowed; add http://{host} to OLLAMA_ORIGINS to allow it"
            )
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204)
        return None

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """For ``on_response_prepare``: remove aiohttp's name; add CORS headers for an allowed page
        of another origin.
        """
        response.headers.popall(hdrs.SERVER, None)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or is_same_origin(origin, request.headers.get(hdrs.HOST, "")):
            return
        if self.is_allowed_origin(origin):
            response.headers.extend(self.cors_headers(origin))
            if request.method != hdrs.METH_OPTIONS:
                response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    def is_allowed_host(self, header: str) -> bool:
        """Whether a request may name this ``Host``."""
        return self._allows_all or (len(header) <= _LONGEST and self._known_host(header))

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of this ``Origin`` may send requests."""
        is_wellformed = len(origin) <= _LONGEST and origin.isascii()
        return self._allows_all or (is_wellformed and bool(self._origins.fullmatch(origin)))

    def cors_headers(self, origin: str) -> list[tuple[str, str]]:
        """The headers of every answer to a page of an allowed ``origin``."""
        if self._allows_all:
            return [("Access-Control-Allow-Origin", "*")]
        return [("Vary", "Origin"), ("Access-Control-Allow-Origin", origin)]

    def _is_allowed_host(self, header: str) -> bool:
        host = _without_port(header).lower()
        if host in self._names or host.endswith(_LOCAL_SUFFIXES):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if self._is_local or ":" in host:
                return False
            return "." not in host or host.endswith(_NETWORK_SUFFIXES)
        return (
            not self._is_local
            or address.is_loopback
            or address.is_private
            or address.is_unspecified
            or host in self._addresses
        )


def is_same_origin(origin: str, host: str) -> bool:
    """Whether this server served the page itself."""
    return origin in {f"http://{host}", f"https://{host}"}


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    host, colon, port = header.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else header


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _own_addresses() -> set[str]:
    return {
        entry.address.partition("%")[0].lower()
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    }
