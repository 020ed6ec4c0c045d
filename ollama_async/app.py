"""Builds the server, runs it until a signal arrives, and tears it down in reverse order.

This is the gateway process. Its main thread spawns the workers, which die with that thread. It owns
the event loop, the worker pool, the listening socket and a thread that monitors the machine.

SIGTERM or SIGINT ends it with the exit status 0. Running answers get a grace period, which a second
signal ends; then everything is reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from ollama_async import OLLAMA_VERSION, __version__, shipped_models
from ollama_async.core.errors import LoadFailed, ServerError, StorageFailed
from ollama_async.core.local_key import KeyUnusable, open_key
from ollama_async.core.safe_text import escape_line, escape_text, set_private_paths
from ollama_async.core.scripted_models import read_scripts
from ollama_async.core.settings import Settings
from ollama_async.gateway.dependencies import Dependencies, Lifecycle
from ollama_async.gateway.http_server import build_runner
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.routes import build_application
from ollama_async.hw import placement
from ollama_async.hw.machine import MachineMonitor, survey_machine
from ollama_async.native import check
from ollama_async.queue.memory_budget import Limits
from ollama_async.store.catalog import Catalog
from ollama_async.store.store import Store
from ollama_async.workers.load_plan import LoadPlanner
from ollama_async.workers.pool import Pool

log = logging.getLogger("ollama_async")

_PACKAGE = Path(__file__).parent

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_SWITCH_INTERVAL_S = 0.001
"""How long the loop waits for the interpreter while a thread decodes a large body."""

_FLUSH_GRACE_S = 2.0
"""How long connections may take to send the rest of ended answers."""


class StartFailed(Exception):
    """The server cannot start; the text says why and what to do."""


def main(settings: Settings, environ: Mapping[str, str] = os.environ) -> int:
    """Serve until a signal arrives. Returns the exit status (1: the server could not start)."""
    _log_to_stderr(settings.debug)
    _raise_open_files_limit()
    for warning in settings.warnings:
        log.warning("%s", warning)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.freeze()  # else each full collection scans the imported modules for 20 ms
    try:
        return uvloop.run(_serve(settings, environ))
    except StartFailed as reason:
        print(f"Error: {reason}", file=sys.stderr)  # noqa: T201  # not only in the log
        return 1


async def _serve(settings: Settings, environ: Mapping[str, str]) -> int:
    signals = _count_end_signals()
    set_private_paths(_private_path_names(settings))
    catalog = await asyncio.to_thread(_open_catalog, settings)
    local_key = await asyncio.to_thread(_open_local_key, settings)
    async with contextlib.AsyncExitStack() as stack:
        machine = await stack.enter_async_context(_monitored_machine(settings, environ))
        metrics = Metrics(version=__version__, ollama_version=OLLAMA_VERSION)
        pool = _build_pool(settings, environ, machine, metrics)
        stack.push_async_callback(pool.close)
        lifecycle = Lifecycle()
        application = build_application(
            Dependencies(
                settings=settings,
                catalog=catalog,
                backend=pool,
                metrics=metrics,
                lifecycle=lifecycle,
                local_key=local_key,
            )
        )
        address = await stack.enter_async_context(_listening(application, settings))
        log.info("Listening on %s (version %s)", address, __version__)
        await signals.acquire()
        log.info("shutting down; running answers have %g s", settings.shutdown_grace_s)
        lifecycle.is_draining = True
        await _drain(pool, settings.shutdown_grace_s, signals)
    _ignore_end_signals()
    log.info("stopped")
    return 0


def _private_path_names(settings: Settings) -> dict[Path, str]:
    """What clients see in place of this server's paths."""
    names = {Path(sys.prefix): "$PREFIX", _PACKAGE: "ollama_async"}
    with contextlib.suppress(KeyError, RuntimeError):  # the system does not know the user
        names |= {Path(pwd.getpwuid(os.getuid()).pw_dir): "~", Path.home(): "~"}
    if settings.scripts:
        names[Path(settings.scripts)] = "$OLLAMA_ASYNC_SCRIPTS"
    names[settings.cache_dir] = "$OLLAMA_ASYNC_CACHE"
    names[settings.models] = "$OLLAMA_MODELS"
    return names


def _count_end_signals() -> asyncio.Semaphore:
    """A semaphore that SIGTERM and SIGINT release."""
    signals = asyncio.Semaphore(0)
    for number in _END_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, signals.release)
    return signals


def _ignore_end_signals() -> None:
    """Else one more signal, after the loop has closed, would change the exit status."""
    for number in _END_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


async def _drain(pool: Pool, grace_s: float, signals: asyncio.Semaphore) -> None:
    """Let running answers end, unless a second signal arrives. ``Pool.close`` ends the rest."""
    draining = asyncio.create_task(pool.drain(grace_s))
    second_signal = asyncio.create_task(signals.acquire())
    await asyncio.wait({draining, second_signal}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, second_signal):
        task.cancel()
    for outcome in await asyncio.gather(draining, second_signal, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("draining: %r", outcome)


def _open_catalog(settings: Settings) -> Catalog:
    """The models of the store and those of the scripted engine. Blocks."""
    store = Store(settings.models, keeps_unused=settings.noprune, prefers_go=settings.go_template)
    try:
        # not the manifests: where they are missing beside blobs, nothing may be pruned
        (settings.models / "blobs").mkdir(parents=True, exist_ok=True)
        store.prune()
    except OSError as reason:
        raise StartFailed(
            f"the model store {settings.models} cannot be used: {reason.strerror};"
            " set OLLAMA_MODELS to a folder that can be written"
        ) from reason
    except StorageFailed as reason:
        # a store that can only be read still serves what is in it
        log.warning("%s; models can be run but not created or deleted", reason)
    try:
        shipped_models.offer(store)  # to a store without models
    except ServerError as reason:
        log.warning("the models of the package were not added: %s", reason)
    try:
        return Catalog(store, read_scripts(settings.scripts) if settings.scripts else {})
    except LoadFailed as reason:
        raise StartFailed(str(reason)) from reason


def _open_local_key(settings: Settings) -> bytes | None:
    """Blocks. None: clients upload files to create models, which always works."""
    try:
        return open_key(settings.cache_dir)
    except (KeyUnusable, OSError) as reason:
        log.warning("no client may name files on this machine: %s", reason)
        return None


def _build_pool(
    settings: Settings, environ: Mapping[str, str], machine: MachineMonitor, metrics: Metrics
) -> Pool:
    limits = Limits(
        max_queue=settings.max_queue,
        capacity=placement.compute_capacity(
            machine.latest, gpu_overhead_bytes=settings.gpu_overhead_bytes
        ),
        max_loaded=settings.max_loaded_models,
        keep_alive_s=settings.keep_alive_s,
    )
    return Pool(
        limits,
        LoadPlanner(settings, lambda: machine.latest, environ),
        metrics,
        load_timeout_s=settings.load_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
        cache_bytes=placement.choose_cache_bytes(machine.latest, settings.cache_ram_bytes),
    )


@contextlib.asynccontextmanager
async def _monitored_machine(
    settings: Settings, environ: Mapping[str, str]
) -> AsyncIterator[MachineMonitor]:
    """The machine, surveyed again and again, without GPUs that the library cannot use."""
    survey = functools.partial(survey_machine, environ.get("CUDA_VISIBLE_DEVICES"))
    machine = await asyncio.to_thread(survey)
    if machine.gpus:
        verdict = await asyncio.to_thread(check.check_library, settings.cache_dir, environ)
        if "CUDA" not in verdict.system_info:
            log.warning(
                "%d GPU(s) found, but the engine library was built without CUDA; to use them: "
                "CMAKE_ARGS=-DGGML_CUDA=on ollama-async engine build",
                len(machine.gpus),
            )
            survey = functools.partial(survey_machine, "")
    monitor = await asyncio.to_thread(MachineMonitor, survey)
    try:
        yield monitor
    finally:
        await asyncio.to_thread(monitor.close)


@contextlib.asynccontextmanager
async def _listening(application: web.Application, settings: Settings) -> AsyncIterator[str]:
    """Accept connections. Yields ``host:port`` as bound (the port may have been 0)."""
    runner = build_runner(application, shutdown_grace_s=_FLUSH_GRACE_S)
    await runner.setup()
    host, port = settings.address.host, settings.address.port
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as reason:
            raise StartFailed(_listen_error(host, port, reason)) from reason
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


def _listen_error(host: str, port: int, reason: OSError) -> str:
    text = f"listen tcp {host}:{port}: "
    if isinstance(reason, socket.gaierror):
        return f"{text}{reason.strerror}; set OLLAMA_HOST to an address of this machine"
    text += os.strerror(reason.errno).lower() if reason.errno else str(reason)
    if "in use" in text:
        return f"{text}; is a server running already? Set OLLAMA_HOST to use another port"
    return f"{text}; set OLLAMA_HOST to an address and port that may be used"


def _raise_open_files_limit() -> None:
    """Each client takes a descriptor, and most systems give a process 1024 by default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _LogFormat(logging.Formatter):
    """One line per record, whatever its texts contain; a traceback keeps its lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base's name
        return escape_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the base's name
        return escape_text(super().formatException(ei))


def _log_to_stderr(debug: int) -> None:
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_LogFormat())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[to_stderr])
    if debug < 2:
        logging.getLogger("asyncio").setLevel(logging.INFO)
        logging.getLogger("aiohttp").setLevel(logging.WARNING)
