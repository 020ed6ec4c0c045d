"""Builds our own kernels for the engine: ``python -P -m ollama_async.native.kernel_build``.

They are a shared library beside the engine's own ones, compiled from ``native/kernels/*.cpp``
against the headers in the engine's wheel (see docs/adr/0009-kernels.md). The files of an
instruction set, ``*_avx2.cpp`` and so on, are compiled with flags of their own. The result is
cached under ``OLLAMA_ASYNC_CACHE`` by a key of all inputs, and installed under a name that contains
a digest of sources and headers: a library of another version is never found.

Nothing needs it: without it, the engine's stock kernels compute. Standard library only, as
:mod:`ollama_async.native.build`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ollama_async.native.build import (
    HEADER,
    REBUILD_COMMAND,
    BuildFailed,
    cache_folder,
    compiler_version,
    find_compilers,
    locked,
)
from ollama_async.native.logged_command import LoggedCommandFailed, run_logged

SOURCES = Path(__file__).with_name("kernels")
_PARALLEL = Path(__file__).with_name("parallel_commands.py")
COMPILE_LIMIT_S = 1800.0

FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden"),
    "-ffp-contract=off",  # the compiler may not choose where a product and a sum are fused
    *("-Wall", "-Wextra"),
)
_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
_ISA_FLAGS = {
    "avx2": _AVX2,
    "avx2_vnni": (*_AVX2, "-mavxvnni"),
    "avx512_vnni": (*_AVX2, *_AVX512),
    "amx": (*_AVX2, *_AVX512, "-mamx-tile", "-mamx-int8", "-include", str(HEADER)),
}
"""By the end of a file's name, as in ``products_avx2.cpp``."""
_NEW_FLAGS = ("-mavxvnni", "-mamx-tile", "-mamx-int8")
"""GCC 10 does not know these. Without them the files do what those of the lesser set do."""

_HEADER_FOLDERS = ("include", "ggml/include", "ggml/src", "ggml/src/ggml-cpu", "src")
_LIBRARIES = ("libggml-cpu.so", "libggml-base.so", "libllama.so")
_NAME = "libollama_async_kernels"
_TITLE = "Compiling the kernels"


class Engine(NamedTuple):
    """The installed engine: the folders of its libraries and of its headers."""

    library: Path
    headers: Path


def find_engine(environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine that this interpreter would load. Imports nothing of it.

    :raises BuildFailed: there can be no kernels for it.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        raise BuildFailed(f"there are none for this kind of processor ({platform.machine()})")
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise BuildFailed("the engine library is not installed")
    package = Path(spec.submodule_search_locations[0])
    if environ.get("LLAMA_CPP_LIB_PATH"):
        raise BuildFailed("LLAMA_CPP_LIB_PATH names a library whose version is not known")
    engine = Engine(package / "lib", package / "headers")
    if not engine.headers.is_dir():
        raise BuildFailed(f"the engine was installed without its headers: {REBUILD_COMMAND}")
    return engine


def installed_path(engine: Engine) -> Path:
    """Where the kernels for exactly this engine and these sources are, if they are installed."""
    return engine.library / f"{_NAME}-{_digest(engine)}.so"


def build_kernels(engine: Engine, cache: Path, *, force: bool = False) -> Path:
    """The compiled kernels, built unless cached. A concurrent build waits for the first one.

    :raises BuildFailed: with the end of the compiler's output.
    """
    compiler = find_compilers().cxx
    inputs = json.dumps([_digest(engine), FLAGS, _isa_flags_text(), compiler_version(compiler)])
    folder = cache / "kernels" / hashlib.sha256(inputs.encode()).hexdigest()[:16]
    kept = folder / f"{_NAME}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if force or not kept.exists():
                with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
                    built = compile_kernels(engine, Path(partial), log=folder / "build.log")
                    built.replace(kept)
    except OSError as reason:
        raise BuildFailed(f"cannot keep the kernels: {reason}") from reason
    return kept


def install(kernels: Path, engine: Engine) -> Path:
    """Copy them beside the engine, atomically, and remove those of other versions.

    :raises BuildFailed: the folder cannot be written.
    """
    target = installed_path(engine)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        try:
            shutil.copyfile(kernels, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        for path in engine.library.glob(f"{_NAME}-*"):
            if path != target:
                path.unlink()
    except OSError as reason:
        raise BuildFailed(f"cannot install the kernels: {reason}") from reason
    return target


def compile_kernels(
    engine: Engine,
    folder: Path,
    *,
    log: Path,
    flags: Callable[[str], Sequence[str]] = lambda _stem: FLAGS,
    program: Sequence[Path] = (),
) -> Path:
    """Compile all files into ``folder``; with the sources of a ``program``, to one. ``flags``: by
    the name of a file without its suffix; those of "" link.

    :raises BuildFailed: with the end of the compiler's output.
    """
    compiler = find_compilers().cxx
    unknown = {flag for flag in _NEW_FLAGS if not _knows(compiler, flag)}
    objects, commands = [], []
    for source in [*sorted(SOURCES.glob("*.cpp")), *program]:
        target = folder / f"{source.stem}.o"
        objects.append(str(target))
        includes = [
            word for each in _HEADER_FOLDERS for word in ("-isystem", str(engine.headers / each))
        ]
        of_isa = [flag for flag in _isa_flags(source.stem) if flag not in unknown]
        own = ["-I", str(SOURCES), *of_isa]
        commands.append(
            [compiler, *flags(source.stem), *own, *includes, "-o", str(target), "-c", str(source)]
        )
    _run(commands, _TITLE, folder, log)
    libraries = [str(engine.library / name) for name in _LIBRARIES]
    paths = [f"-Wl,-rpath,{engine.library if program else '$ORIGIN'}", "-Wl,--no-undefined"]
    result = folder / ("check" if program else f"{_NAME}.so")
    kind = [] if program else ["-shared", "-Wl,-soname," + _NAME]
    link = [compiler, *flags(""), *kind, *objects, *libraries, *paths, "-o", str(result)]
    _run([link], "Linking the kernels", folder, log.with_suffix(".link.log"))
    return result


def _run(commands: list[list[str]], title: str, folder: Path, log: Path) -> None:
    listed = folder / "commands.json"
    listed.write_text(json.dumps(commands))
    line = [sys.executable, "-I", "-S", str(_PARALLEL), str(listed)]
    try:
        run_logged(line, title=title, log=log, timeout_s=COMPILE_LIMIT_S)
    except LoggedCommandFailed as reason:
        raise BuildFailed(str(reason)) from reason


def _knows(compiler: str, flag: str) -> bool:
    line = [compiler, flag, "-x", "c++", "-fsyntax-only", "/dev/null"]
    return subprocess.run(line, capture_output=True, timeout=60, check=False).returncode == 0


def _isa_flags(stem: str) -> tuple[str, ...]:
    """The flags for the instruction set that a file's name ends with; the longest name counts."""
    fitting = [isa for isa in _ISA_FLAGS if stem.endswith(f"_{isa}")]
    return _ISA_FLAGS[max(fitting, key=len)] if fitting else ()


def _isa_flags_text() -> str:
    return json.dumps(_ISA_FLAGS).replace(str(HEADER.parent), "")


def sources_digest() -> str:
    """Of our part of the inputs."""
    digest = hashlib.sha256(HEADER.read_bytes())
    _add_files(digest, SOURCES)
    return digest.hexdigest()[:16]


def _digest(engine: Engine) -> str:
    """Of our sources and the engine's headers."""
    digest = hashlib.sha256(sources_digest().encode())
    _add_files(digest, engine.headers)
    return digest.hexdigest()[:16]


def _add_files(digest: hashlib._Hash, root: Path) -> None:
    for path in sorted(root.rglob("*.*")):
        if path.suffix in {".h", ".cpp"}:
            digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())


def main(*, force: bool = False) -> None:
    """Build for the engine that is installed, and install; or say why there will be none."""
    try:
        engine = find_engine()
        target = install(build_kernels(engine, cache_folder(), force=force), engine)
    except BuildFailed as reason:
        print(f"The engine runs without our own kernels: {reason}", file=sys.stderr)  # noqa: T201
    else:
        print(f"Our own kernels are installed: {target.name}.", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
