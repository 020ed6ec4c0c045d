"""Every environment variable, in one table; everything else reads :class:`Settings`.

Values are read as Ollama reads them: stripped of blanks and then of surrounding quotes; a bad
boolean is true; a bad number or duration is the default, with a warning. The table is what
``--help`` and the documentation are made from and tested against.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.gocompat import durations

DEFAULT_PORT = 11434
CACHE_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
PREFIX_SHARING = ("all", "client")

_ORIGIN_SCHEMES = (
    *("http://", "https://", "chrome-extension://", "safari-extension://"),
    *("moz-extension://", "ms-browser-extension://"),
)


class Address(msgspec.Struct, frozen=True):
    """Where the server listens and clients connect. ``path`` is "" or begins with a slash."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:11434``; IPv6 hosts in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one process. Durations in seconds; ``inf`` means never."""

    address: Address
    models: Path
    max_queue: int
    num_parallel: int
    max_loaded_models: int
    keep_alive_s: float
    load_timeout_s: float
    shutdown_grace_s: float
    stall_timeout_s: float
    context_length: int
    flash_attention: str
    kv_cache_type: str
    gpu_overhead_bytes: int
    noprune: bool
    go_template: bool | None
    origins: tuple[str, ...]
    debug: int
    pull_connections: int
    pull_stall_s: float
    trusted_registries: frozenset[str]
    repetition_limit: int
    enforce_tool_schemas: bool
    prefix_sharing: str
    scripts: str
    cache_dir: Path
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the table's variables; unreadable values become defaults and ``warnings``."""
        warnings: list[str] = []
        values: dict[str, Any] = {}
        for variable in VARIABLES:
            raw = environ.get(variable.name, "").strip().strip("\"'")
            if not raw:
                values[variable.field] = variable.default
                continue
            try:
                values[variable.field] = variable.read(raw)
            except ValueError:
                warnings.append(
                    f"{variable.name}: cannot read {raw!r}, using {variable.shown_default}"
                )
                values[variable.field] = variable.default
        port = values.pop("port")
        host = values.pop("host")
        try:
            address = parse_address(host, default_port=port)
        except BadPort as reason:
            address = reason.fallback
            warnings.append(f"OLLAMA_HOST: {reason}, using port {address.port}")
        for folder in ("models", "cache_dir"):
            values[folder] = _folder(values[folder])
        return cls(address=address, warnings=tuple(warnings), **values)


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. ``shown_default`` is what documentation prints."""

    name: str
    field: str
    default: Any
    shown_default: str
    read: Callable[[str], Any]
    meaning: str


class BadPort(ValueError):
    """``fallback``: the address with the port that would hold if none had been named."""

    def __init__(self, digits: str, fallback: Address) -> None:
        super().__init__(f"invalid port {digits[:40]!r}")
        self.fallback = fallback


def parse_address(text: str, *, default_port: int = DEFAULT_PORT) -> Address:
    """Read every form of ``OLLAMA_HOST``: ``host``, ``host:port``, ``:port``, ``[::1]:port``,
    ``scheme://host[:port][/path]``. Without a scheme the port is ``default_port``; ``http`` means
    80 and ``https`` 443. An empty host with a port listens everywhere, as in Ollama.

    :raises BadPort: the port is no number from 0 to 65535.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest, port = "http", text, default_port
    else:
        port = {"http": 80, "https": 443}.get(scheme, default_port)
    hostport, slash, path = rest.partition("/")
    path = f"/{path}".rstrip("/") if slash else ""
    host, colon, digits = hostport.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # a name, [::1], or ::1
        return Address(scheme, hostport.strip("[]") or "127.0.0.1", port, path)
    host = host.strip("[]") or "0.0.0.0"  # noqa: S104  # ":8080" asks for exactly that
    try:
        return Address(scheme, host, _port(digits), path)
    except ValueError:
        raise BadPort(digits, Address(scheme, host, port, path)) from None


def _boolean(raw: str) -> bool:
    return raw not in {"0", "f", "F", "false", "FALSE", "False"}


def _count(raw: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", raw):
        raise ValueError
    return int(raw)


def _at_least_one(raw: str) -> int:
    return _count(raw) or 1


def _seconds(raw: str) -> float:
    """Go duration or plain seconds; negative means for ever."""
    is_plain = re.fullmatch("[+-]?[0-9]{1,18}", raw)
    seconds = float(raw) if is_plain else durations.parse(raw) / 1e9
    return math.inf if seconds < 0 else seconds


def _limit_seconds(raw: str) -> float:
    """As :func:`_seconds`, but zero, too, means no limit."""
    return _seconds(raw) or math.inf


def _port(raw: str) -> int:
    value = _count(raw)
    if value > 65535:
        raise ValueError
    return value


def _folder(raw: str | Path) -> Path:
    """With ``~`` replaced; who has no home, as in some containers, lives at ``/``."""
    folder = os.path.expanduser(raw)  # noqa: PTH111  # Path's raises where this leaves the ~
    if folder.startswith("~/"):
        return Path(folder[1:])
    if folder.startswith("~"):
        raise ValueError
    return Path(folder)


def _debug(raw: str) -> int:
    try:
        return int(raw)
    except ValueError:
        return int(_boolean(raw))


def _origins(raw: str) -> tuple[str, ...]:
    """Comma-separated origins; each holds at most one ``*``, or names a scheme browsers use."""
    origins = tuple(entry for entry in (part.strip() for part in raw.split(",")) if entry)
    for origin in origins:
        if origin.count("*") > 1:
            raise ValueError("only one * is allowed")
        if "*" not in origin and not origin.startswith(_ORIGIN_SCHEMES):
            raise ValueError("bad origin")
    return origins


def _hosts(raw: str) -> frozenset[str]:
    """Comma-separated ``host`` or ``host:port``."""
    hosts = frozenset(host.strip().lower() for host in raw.split(",") if host.strip())
    if not all(re.fullmatch(r"[a-z0-9_.-]+(:[0-9]{1,5})?", host) for host in hosts):
        raise ValueError
    return hosts


def _switch(raw: str) -> str:
    return "on" if _boolean(raw) else "off"


def _sharing(raw: str) -> str:
    if raw.lower() not in PREFIX_SHARING:
        raise ValueError
    return raw.lower()


def _cache_type(raw: str) -> str:
    if raw.lower() not in CACHE_TYPES:
        raise ValueError
    return raw.lower()


VARIABLES: tuple[Variable, ...] = (
    Variable(
        name="OLLAMA_HOST",
        field="host",
        default="",
        shown_default="127.0.0.1:11434",
        read=str,
        meaning="Address that the server listens on and that commands connect to",
    ),
    Variable(
        name="OLLAMA_PORT",
        field="port",
        default=DEFAULT_PORT,
        shown_default="11434",
        read=_port,
        meaning="Port, if OLLAMA_HOST has none",
    ),
    Variable(
        name="OLLAMA_MODELS",
        field="models",
        default="~/.ollama/models",
        shown_default="~/.ollama/models",
        read=_folder,
        meaning="Folder of the model store (Ollama's layout)",
    ),
    Variable(
        name="OLLAMA_MAX_QUEUE",
        field="max_queue",
        default=512,
        shown_default="512",
        read=_count,
        meaning="Requests that may wait; the next one gets 503 at once (0: none may wait)",
    ),
    Variable(
        name="OLLAMA_NUM_PARALLEL",
        field="num_parallel",
        default=0,
        shown_default="auto",
        read=_count,
        meaning="Requests that one model serves at a time (auto: 1 to 32, as memory allows)",
    ),
    Variable(
        name="OLLAMA_MAX_LOADED_MODELS",
        field="max_loaded_models",
        default=0,
        shown_default="auto",
        read=_count,
        meaning="Models in memory at a time (auto: 3 per GPU, 3 on a CPU)",
    ),
    Variable(
        name="OLLAMA_KEEP_ALIVE",
        field="keep_alive_s",
        default=300.0,
        shown_default="5m",
        read=_seconds,
        meaning="How long an idle model stays loaded (negative: for ever; 0: not at all)",
    ),
    Variable(
        name="OLLAMA_LOAD_TIMEOUT",
        field="load_timeout_s",
        default=300.0,
        shown_default="5m",
        read=_limit_seconds,
        meaning="How long a load may make no progress before it fails (0: no limit)",
    ),
    Variable(
        name="OLLAMA_SHUTDOWN_GRACE",
        field="shutdown_grace_s",
        default=10.0,
        shown_default="10s",
        read=_seconds,
        meaning="How long running requests may continue after SIGTERM",
    ),
    Variable(
        name="OLLAMA_STALL_TIMEOUT",
        field="stall_timeout_s",
        default=120.0,
        shown_default="2m",
        read=_limit_seconds,
        meaning="How long a worker may be unresponsive before it is killed (0: no limit)",
    ),
    Variable(
        name="OLLAMA_CONTEXT_LENGTH",
        field="context_length",
        default=0,
        shown_default="4096",
        read=_count,
        meaning="Context in tokens, unless the request or the model sets it",
    ),
    Variable(
        name="OLLAMA_FLASH_ATTENTION",
        field="flash_attention",
        default="auto",
        shown_default="auto",
        read=_switch,
        meaning="Force flash attention on or off",
    ),
    Variable(
        name="OLLAMA_KV_CACHE_TYPE",
        field="kv_cache_type",
        default="f16",
        shown_default="f16",
        read=_cache_type,
        meaning=f"Type of the KV cache: {', '.join(CACHE_TYPES)}",
    ),
    Variable(
        name="OLLAMA_GPU_OVERHEAD",
        field="gpu_overhead_bytes",
        default=0,
        shown_default="0",
        read=_count,
        meaning="Bytes to keep free on each GPU",
    ),
    Variable(
        name="OLLAMA_NOPRUNE",
        field="noprune",
        default=False,
        shown_default="false",
        read=_boolean,
        meaning="Keep blobs that no model needs at start",
    ),
    Variable(
        name="OLLAMA_GO_TEMPLATE",
        field="go_template",
        default=None,
        shown_default="the better one",
        read=_boolean,
        meaning="Prefer a model's Go template to the template in its GGUF file",
    ),
    Variable(
        name="OLLAMA_ORIGINS",
        field="origins",
        default=(),
        shown_default="local hosts and desktop shells",
        read=_origins,
        meaning="Additional browser origins, comma separated, at most one * each; "
        "their hosts are also accepted as Host (* alone: everything)",
    ),
    Variable(
        name="OLLAMA_DEBUG",
        field="debug",
        default=0,
        shown_default="0",
        read=_debug,
        meaning="1: verbose log; 2: log everything",
    ),
    Variable(
        name="OLLAMA_ASYNC_PULL_CONNECTIONS",
        field="pull_connections",
        default=8,
        shown_default="8",
        read=_at_least_one,
        meaning="Parts of a blob that are pulled or pushed at a time",
    ),
    Variable(
        name="OLLAMA_ASYNC_PULL_STALL_TIMEOUT",
        field="pull_stall_s",
        default=30.0,
        shown_default="30s",
        read=_limit_seconds,
        meaning="How long a registry may send nothing, or less than 16 KiB, before its "
        "connection is replaced (0: no limit)",
    ),
    Variable(
        name="OLLAMA_ASYNC_TRUSTED_REGISTRIES",
        field="trusted_registries",
        default=frozenset(),
        shown_default="none",
        read=_hosts,
        meaning="Private registries that clients on the network may name, host or host:port, "
        "comma separated; they may also lead to other addresses of their kind",
    ),
    Variable(
        name="OLLAMA_ASYNC_REPETITION_LIMIT",
        field="repetition_limit",
        default=2048,
        shown_default="2048",
        read=_count,
        meaning="Tokens for which an answer may repeat one passage before it ends with length "
        "(0: no limit)",
    ),
    Variable(
        name="OLLAMA_ASYNC_TOOL_SCHEMAS",
        field="enforce_tool_schemas",
        default=True,
        shown_default="true",
        read=_boolean,
        meaning="Constrain a tool call, once the model has begun one, to the offered tools and "
        "their schemas",
    ),
    Variable(
        name="OLLAMA_ASYNC_PREFIX_SHARING",
        field="prefix_sharing",
        default="all",
        shown_default="all",
        read=_sharing,
        meaning="Who shares computed prompt prefixes: all clients (all), or each client only its "
        "own (client); what the model itself brings is always shared",
    ),
    Variable(
        name="OLLAMA_ASYNC_SCRIPTS",
        field="scripts",
        default="",
        shown_default="unset",
        read=str,
        meaning="File with scripts for the scripted engine, for tests",
    ),
    Variable(
        name="OLLAMA_ASYNC_CACHE",
        field="cache_dir",
        default="~/.cache/ollama_async",
        shown_default="~/.cache/ollama_async",
        read=_folder,
        meaning="Folder for engine wheels, engine check results, and the key that lets the "
        "server's own user name files in `create`",
    ),
)
