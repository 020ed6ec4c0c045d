"""Every environment variable, in one table; everything else reads :class:`Settings`.

Values are read as Ollama reads them: stripped of blanks and then of surrounding quotes; a bad
boolean is true; a bad number or duration is the default, with a warning. The table is what
``--help`` and the documentation are made from and tested against.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.gocompat import durations

DEFAULT_PORT = 11434
CACHE_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
PREFIX_SHARING = ("all", "client")
KERNELS = ("auto", "stock", "amx", "avx512_vnni", "avx2_vnni", "avx2")

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


class Variable(msgspec.Struct, frozen=True):
    """One row of the table: how a value is read, its default, and what documentation prints."""

    name: str
    read: Callable[[str], Any]
    default: Any
    meaning: str
    shown_default: str
    field: str = ""


_rows: list[Variable] = []


def _variable(
    name: str, read: Callable[[str], Any], default: Any, meaning: str, *, shown: str = ""
) -> Any:
    """Add a row, for a field that has no default of its own: a process reads all of them."""
    shown = shown or (str(default).lower() if isinstance(default, bool) else str(default))
    _rows.append(Variable(name, read, default, meaning, shown))
    return msgspec.field()


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


def _bytes(raw: str) -> int:
    """A number, perhaps with a fraction and a unit: ``B``, ``KB`` (1,000), ``KiB`` (1,024), …;
    ``K``, ``M``, ``G`` and ``T`` alone are binary. Case and blanks do not matter.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *(?:([KMGT])(I?B)?|B)?", raw.upper())
    if match is None:
        raise ValueError
    number, unit, suffix = match.groups()
    power = " KMGT".index(unit or " ")
    return min(int(float(number) * (1000 if suffix == "B" else 1024) ** power), sys.maxsize)


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
    """With ``~`` replaced, by ``/`` if there is no home folder, as in some containers."""
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


def _kernels(raw: str) -> str:
    if raw.lower() not in KERNELS:
        raise ValueError
    return raw.lower()


def _cache_type(raw: str) -> str:
    if raw.lower() not in CACHE_TYPES:
        raise ValueError
    return raw.lower()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one process. Durations in seconds; ``inf`` means never."""

    address: Address
    models: Path = _variable(
        "OLLAMA_MODELS", _folder, "~/.ollama/models", "Folder of the model store (Ollama's layout)"
    )
    max_queue: int = _variable(
        "OLLAMA_MAX_QUEUE",
        _count,
        512,
        "Requests that may wait; the next one gets 503 at once (0: none may wait)",
    )
    num_parallel: int = _variable(
        "OLLAMA_NUM_PARALLEL",
        _count,
        0,
        "Requests that one model serves at a time (auto: 1 to 32, as memory allows)",
        shown="auto",
    )
    max_loaded_models: int = _variable(
        "OLLAMA_MAX_LOADED_MODELS",
        _count,
        0,
        "Models in memory at a time (auto: 3 per GPU, 3 on a CPU)",
        shown="auto",
    )
    keep_alive_s: float = _variable(
        "OLLAMA_KEEP_ALIVE",
        _seconds,
        300.0,
        "How long an idle model stays loaded (negative: for ever; 0: not at all)",
        shown="5m",
    )
    load_timeout_s: float = _variable(
        "OLLAMA_LOAD_TIMEOUT",
        _limit_seconds,
        300.0,
        "How long a load may make no progress before it fails (0: no limit)",
        shown="5m",
    )
    shutdown_grace_s: float = _variable(
        "OLLAMA_SHUTDOWN_GRACE",
        _seconds,
        10.0,
        "How long running requests may continue after SIGTERM",
        shown="10s",
    )
    stall_timeout_s: float = _variable(
        "OLLAMA_STALL_TIMEOUT",
        _limit_seconds,
        120.0,
        "How long a worker may be unresponsive before it is killed (0: no limit)",
        shown="2m",
    )
    context_length: int = _variable(
        "OLLAMA_CONTEXT_LENGTH",
        _count,
        0,
        "Context in tokens, unless the request or the model sets it",
        shown="4096",
    )
    flash_attention: str = _variable(
        "OLLAMA_FLASH_ATTENTION", _switch, "auto", "Force flash attention on or off"
    )
    kv_cache_type: str = _variable(
        "OLLAMA_KV_CACHE_TYPE",
        _cache_type,
        "f16",
        f"Type of the KV cache: {', '.join(CACHE_TYPES)}",
    )
    gpu_overhead_bytes: int = _variable(
        "OLLAMA_GPU_OVERHEAD", _count, 0, "Bytes to keep free on each GPU"
    )
    noprune: bool = _variable(
        "OLLAMA_NOPRUNE", _boolean, False, "Keep blobs that no model needs at start"
    )
    no_cloud: bool = _variable(
        "OLLAMA_NO_CLOUD",
        _boolean,
        False,
        "Disable Ollama's cloud: its models and routes get 403 instead of 401",
    )
    go_template: bool | None = _variable(
        "OLLAMA_GO_TEMPLATE",
        _boolean,
        None,
        "Prefer a model's Go template to the template in its GGUF file",
        shown="the better one",
    )
    origins: tuple[str, ...] = _variable(
        "OLLAMA_ORIGINS",
        _origins,
        (),
        "Additional browser origins, comma separated, at most one * each; "
        "their hosts are also accepted as Host (* alone: everything)",
        shown="local hosts and desktop shells",
    )
    debug: int = _variable("OLLAMA_DEBUG", _debug, 0, "1: verbose log; 2: log everything")
    pull_connections: int = _variable(
        "OLLAMA_ASYNC_PULL_CONNECTIONS",
        _at_least_one,
        8,
        "Parts of a blob that are pulled or pushed at a time",
    )
    pull_stall_s: float = _variable(
        "OLLAMA_ASYNC_PULL_STALL_TIMEOUT",
        _limit_seconds,
        30.0,
        "How long a registry may send nothing, or less than 16 KiB, before its "
        "connection is replaced (0: no limit)",
        shown="30s",
    )
    trusted_registries: frozenset[str] = _variable(
        "OLLAMA_ASYNC_TRUSTED_REGISTRIES",
        _hosts,
        frozenset(),
        "Private registries that clients on the network may name, host or host:port, "
        "comma separated; they may also lead to other addresses of their kind",
        shown="none",
    )
    repetition_limit: int = _variable(
        "OLLAMA_ASYNC_REPETITION_LIMIT",
        _count,
        2048,
        "Tokens for which an answer may repeat one passage before it ends with length "
        "(0: no limit)",
    )
    enforce_tool_schemas: bool = _variable(
        "OLLAMA_ASYNC_TOOL_SCHEMAS",
        _boolean,
        True,
        "Constrain a tool call, once the model has begun one, to the offered tools and "
        "their schemas",
    )
    prefix_sharing: str = _variable(
        "OLLAMA_ASYNC_PREFIX_SHARING",
        _sharing,
        "all",
        "Who shares computed prompt prefixes: all clients (all), or each client only its "
        "own (client); what the model itself brings is always shared",
    )
    kernels: str = _variable(
        "OLLAMA_ASYNC_KERNELS",
        _kernels,
        "auto",
        "What computes on the CPU: our own kernels for the best instruction set (auto), those for "
        "one that is named, or the engine library's (stock)",
    )
    cache_ram_bytes: int | None = _variable(
        "OLLAMA_ASYNC_CACHE_RAM",
        _bytes,
        None,
        "Main memory in which a loaded model keeps conversations that lost their slot, in bytes "
        "or as in 2GiB (auto: an eighth of what is available at start, at most 8GiB; 0: none)",
        shown="auto",
    )
    scripts: str = _variable(
        "OLLAMA_ASYNC_SCRIPTS",
        str,
        "",
        "File with scripts for the scripted engine, for tests",
        shown="unset",
    )
    cache_dir: Path = _variable(
        "OLLAMA_ASYNC_CACHE",
        _folder,
        "~/.cache/ollama_async",
        "Folder for engine wheels, engine check results, and the key that lets the "
        "server's own user name files in `create`",
    )
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


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "OLLAMA_HOST",
        str,
        "",
        "Address that the server listens on and that commands connect to",
        "127.0.0.1:11434",
        "host",
    ),
    Variable("OLLAMA_PORT", _port, DEFAULT_PORT, "Port, if OLLAMA_HOST has none", "11434", "port"),
    *(
        msgspec.structs.replace(row, field=field)
        for row, field in zip(_rows, Settings.__struct_fields__[1:-1], strict=True)
    ),
)
