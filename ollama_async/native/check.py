"""Checks whether the installed engine library works on this CPU; the verdict is cached.

A library built for another CPU, or by a faulty compiler, may crash or compute wrong results in its
first quantized matrix product. So the first worker runs a probe in a separate process
(:mod:`ollama_async.native.probe`), and acts on one of three verdicts:

=============  ==================================================================================
``fast``       the library works
``safe``       only without the CPU's fast kernels: load models with ``use_extra_bufts=False``
``unusable``   refuse to load models, with the reason
=============  ==================================================================================

If it works, one more probe tries our own kernels (:mod:`.kernels`): they are used, or the verdict
says why stock kernels compute.

Verdicts are stored in ``engine-check.json`` in the cache folder, by the library's files and the
CPU. Everything here blocks, the first time for seconds: do not call it on an event loop.
``OLLAMA_ASYNC_PROBE_FAULT`` injects faults for tests, see :mod:`ollama_async.native.probe`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ollama_async.native.build import (
    REBUILD_COMMAND,
    BuildFailed,
    cpu_fingerprint,
    lock_file,
)
from ollama_async.native.kernel_build import find_engine, installed_path, sources_digest
from ollama_async.native.kernels import AUTO, STOCK

PROBE_LIMIT_S = 60
"""A correct library takes one second, longer on a busy machine."""

Mode = Literal["fast", "safe", "own"]
"""What a probe tries: the library as it is, without the CPU's fast kernels, or with our own."""

FAULT_VARIABLE = "OLLAMA_ASYNC_PROBE_FAULT"
MAX_VERDICTS = 16
_FILE = "engine-check.json"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``reason``: for the log (safe) or the client (unusable), with the command to rebuild; "" if
    fast. ``library``: the folder of its files; "" if missing. ``isa``: the instruction set of our
    kernels that may be used; "" = none, because of ``stock_reason``.
    """

    kind: Literal["fast", "safe", "unusable"]
    reason: str = ""
    system_info: str = ""
    library: str = ""
    isa: str = ""
    stock_reason: str = ""


class ProbeReport(msgspec.Struct, omit_defaults=True):
    """The output of a probe. ``wrong``: "" if the library works. ``system_info``: the library's
    text about its instruction sets. ``isa``: of our kernels, if they were tried.
    """

    wrong: str = ""
    system_info: str = ""
    isa: str = ""


class _Attempt(msgspec.Struct, frozen=True):
    """The result of one probe. ``fault``: "" if the library works. ``is_lasting``: another probe
    would have the same result. A timeout may be due to a busy machine.
    """

    fault: str
    system_info: str = ""
    isa: str = ""
    is_lasting: bool = True


def check_library(
    cache_dir: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    kernels: str = AUTO,
    limit_s: int = PROBE_LIMIT_S,
) -> Verdict:
    """The verdict on the library that this interpreter would load; never raises. ``kernels``: a
    value of ``OLLAMA_ASYNC_KERNELS``.

    Concurrent processes wait for the first one's result, for two probes at most. If the cache
    cannot be read or written, there is another probe.
    """
    library = _library_folder(environ)
    if library is None:
        return _unusable("the engine library is not installed", "", _Attempt(""))
    key = _key(library, environ, kernels)
    with _locked(cache_dir, 2 * limit_s + 10):
        known = _read(cache_dir)
        if key in known:
            return known[key]
        verdict, is_lasting = _judge(library, environ, kernels, limit_s)
        if is_lasting:
            known[key] = verdict
            _write(cache_dir, known)
        return verdict


def _judge(
    library: Path, environ: Mapping[str, str], kernels: str, limit_s: int
) -> tuple[Verdict, bool]:
    """The verdict, and whether it is lasting."""
    fast = _attempt(environ, limit_s)
    if not fast.fault:
        own = _judge_kernels(environ, kernels, limit_s)
        verdict = Verdict(
            kind="fast",
            system_info=fast.system_info,
            library=str(library),
            isa="" if own.fault else own.isa,
            stock_reason=own.fault,
        )
        return verdict, own.is_lasting
    safe = _attempt(environ, limit_s, mode="safe")
    is_lasting = fast.is_lasting and safe.is_lasting
    if safe.fault:
        reason = f"the engine library does not work on this machine ({safe.fault})"
        return _unusable(reason, str(library), safe), is_lasting
    reason = (
        f"the engine library fails with this CPU's fast kernels ({fast.fault}); "
        f"models run slowly without them until it is rebuilt: {REBUILD_COMMAND}"
    )
    verdict = Verdict(
        kind="safe",
        reason=reason,
        system_info=safe.system_info,
        library=str(library),
        stock_reason="the engine library itself must avoid fast kernels",
    )
    return verdict, is_lasting


def _judge_kernels(environ: Mapping[str, str], kernels: str, limit_s: int) -> _Attempt:
    """The result of a probe of our kernels, or why none is made."""
    if kernels == STOCK:
        return _Attempt("OLLAMA_ASYNC_KERNELS says so")
    try:
        is_built = installed_path(find_engine(environ)).exists()
    except BuildFailed as reason:
        return _Attempt(str(reason))
    if not is_built:
        return _Attempt(f"our own are not built: {REBUILD_COMMAND}")
    attempt = _attempt(environ, limit_s, mode="own", kernels=kernels)
    if attempt.fault:
        return msgspec.structs.replace(attempt, fault=f"our own fail here: {attempt.fault}")
    return attempt


def _unusable(what: str, library: str, attempt: _Attempt) -> Verdict:
    return Verdict(
        kind="unusable",
        reason=f"{what}; build it for this machine: {REBUILD_COMMAND}",
        system_info=attempt.system_info,
        library=library,
    )


def _attempt(
    environ: Mapping[str, str], limit_s: int, *, mode: Mode = "fast", kernels: str = AUTO
) -> _Attempt:
    """Run one probe; it ends itself after ``limit_s`` and is killed a second later."""
    line = [sys.executable, "-P", "-m", "ollama_async.native.probe"]
    line += ["--mode", mode, "--kernels", kernels, "--limit-s", str(limit_s)]
    timed_out = _Attempt(f"no result within {limit_s} s", is_lasting=False)
    try:
        ended = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environ),
            timeout=limit_s + 1,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return timed_out
    except OSError as reason:
        return _Attempt(f"the probe could not be started: {reason}", is_lasting=False)
    if ended.returncode in {0, 1}:
        with contextlib.suppress(msgspec.DecodeError):
            report = msgspec.json.decode(ended.stdout, type=ProbeReport)
            return _Attempt(report.wrong, report.system_info, report.isa)
    if ended.returncode == -signal.SIGALRM:
        return timed_out
    return _Attempt(_crash_reason(ended))


def _crash_reason(ended: subprocess.CompletedProcess[bytes]) -> str:
    """``it crashes with SIGSEGV``, or the last line of output."""
    if ended.returncode < 0:
        with contextlib.suppress(ValueError):
            return f"it crashes with {signal.Signals(-ended.returncode).name}"
    last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return last or f"exit status {ended.returncode}"


def _library_folder(environ: Mapping[str, str]) -> Path | None:
    """The folder of the binding's libraries; None if it is not installed.

    Imports nothing: importing the library may crash.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = environ.get("LLAMA_CPP_LIB_PATH") or Path(spec.submodule_search_locations[0]) / "lib"
    return Path(folder) if Path(folder).is_dir() else None


def _key(library: Path, environ: Mapping[str, str], kernels: str) -> str:
    """Changes with every file of the library, ours beside it included, with our sources, the CPU,
    the choice of kernels, and an injected fault.
    """
    parts = [str(library), cpu_fingerprint(), environ.get(FAULT_VARIABLE, ""), kernels]
    parts.append(sources_digest())
    for path in sorted(library.iterdir()):
        with contextlib.suppress(OSError):  # ignore dangling links
            facts = path.stat()
            parts.append(f"{path.name} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _read(cache_dir: Path) -> dict[str, Verdict]:
    try:
        return msgspec.json.decode((cache_dir / _FILE).read_bytes(), type=dict[str, Verdict])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(cache_dir: Path, verdicts: dict[str, Verdict]) -> None:
    """Write the newest verdicts, atomically."""
    newest = dict(list(verdicts.items())[-MAX_VERDICTS:])
    partial = cache_dir / f".{_FILE}.{os.getpid()}.partial"
    with contextlib.suppress(OSError):
        try:
            partial.write_bytes(msgspec.json.format(msgspec.json.encode(newest)))
            partial.replace(cache_dir / _FILE)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(cache_dir: Path, limit_s: float) -> Iterator[None]:
    """Hold the lock; continue without it after ``limit_s``, or if there can be no lock file."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            cache_dir.mkdir(parents=True, exist_ok=True)
            lock_file(stack.enter_context((cache_dir / f"{_FILE}.lock").open("w")), limit_s)
        yield
