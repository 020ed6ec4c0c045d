"""Quantizes models, and joins models in several files.

The engine library does both, in its own process (:mod:`ollama_async.native.quantize`): native code
may crash, and cannot be interrupted. Its output becomes a blob after a check of the header. Closing
a generator of this module ends the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import BadRequest, Busy, EngineFailed, StorageFailed
from ollama_async.core.native_environ import native_environ
from ollama_async.gguf.reader import GgufHeader, read_header
from ollama_async.gguf.summary import summarize
from ollama_async.gguf.types import FILE_TYPES, TENSOR_TYPES
from ollama_async.store.files import NewFile, free_bytes
from ollama_async.store.layout import StoreLayout

MODULE = "ollama_async.native.quantize"
STEP_S = 0.2
"""Time between two statuses, and how long a step may block."""

_NO_DIGEST = "0" * 19
"""Ollama's digest of a file being written."""
_READ_BYTES = 1 << 20
_END_S = 10.0
_FULL_BYTES = 1 << 20

LEVELS = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S"),
    *("Q2_K", "Q2_0", "TQ2_0", "TQ1_0", "Q1_0"),
)
"""The levels that need no importance matrix. ``MXFP4`` is for mixtures of experts: other tensors
become Q8_0."""

SOURCE_LEVELS = ("F32", "F16", "BF16")
"""Types that may be quantized; others have lost too much precision."""

NEED_MATRIX = (
    *("Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
)
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4_MOE": "MXFP4"}
_SMALLEST_TYPES = {"IQ3_M": "IQ3_S"}
_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
FILE_TYPE_NUMBERS = {name: number for number, name in FILE_TYPES.items()}


def parse_level(text: str) -> str:
    """One of :data:`LEVELS`, in any case; "" for "".

    :raises BadRequest: ``unsupported quantization type X - …``, with the supported ones.
    """
    level = text.strip().upper()
    level = _ALIASES.get(level, level)
    if level in NEED_MATRIX:
        raise BadRequest(
            f"unsupported quantization type {level} - it needs an importance matrix,"
            " which create does not take"
        )
    if level and level not in LEVELS:
        supported = ", ".join(LEVELS)
        raise BadRequest(f"unsupported quantization type {level} - supported types are {supported}")
    return level


def min_bytes(level: str, elements: int) -> int:
    """A lower bound of the size of so many elements at a level; 0 if unknown."""
    name = _SMALLEST_TYPES.get(level, level)
    kind = _TYPES.get(name) or _TYPES.get(name.rpartition("_")[0])  # Q4_K_M is Q4_K and larger ones
    return elements * kind.block_bytes // kind.block_elements if kind else 0


def quantize(layout: StoreLayout, digest: str, level: str) -> Generator[ProgressStatus, None, str]:
    """Quantize the model ``digest`` to ``level``, one of :data:`LEVELS`.

    Yields statuses every :data:`STEP_S` and returns the digest of the new blob, or ``digest`` if
    the model has that level.

    :raises BadRequest: the source is quantized already, or was removed meanwhile.
    :raises Busy: too many other models are being rewritten.
    :raises EngineFailed: the library cannot read it, or crashed.
    :raises StorageFailed: disk full or not writable.
    """
    before = layout.cache.summary(digest).quantization
    if before == level:
        return digest
    if before not in SOURCE_LEVELS:
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    status = f"quantizing {before} model to {level}"
    source = layout.blobs.path(digest)
    return (yield from _rewritten(layout, source, [read_header(source)], status, level))


def join_parts(layout: StoreLayout, digests: Sequence[str]) -> Generator[ProgressStatus, None, str]:
    """Join the parts of a model into one file; otherwise as :func:`quantize`.

    :raises BadRequest: they are not all parts of one model, each once.
    """
    headers = {digest: read_header(layout.blobs.path(digest)) for digest in digests}
    ordered = _in_order(headers)
    with tempfile.TemporaryDirectory(prefix="ollama_async-") as folder:
        names = [f"part-{n:05}-of-{len(ordered):05}.gguf" for n in range(1, len(ordered) + 1)]
        for name, digest in zip(names, ordered, strict=True):
            (Path(folder) / name).symlink_to(layout.blobs.path(digest).absolute())
        source = Path(folder) / names[0]
        return (
            yield from _rewritten(layout, source, list(headers.values()), "joining GGUF files", "")
        )


def _in_order(headers: dict[str, GgufHeader]) -> list[str]:
    """The digests in the order of their parts. :raises BadRequest:"""
    counts = {header.metadata.get("split.count") for header in headers.values()}
    numbered = {header.metadata.get("split.no"): digest for digest, header in headers.items()}
    if len(counts) > 1:
        raise BadRequest("the files are parts of different models")
    if counts != {len(headers)}:
        raise BadRequest(f"{len(headers)} of {next(iter(counts))} parts of the model are given")
    if set(numbered) != set(range(len(headers))):
        raise BadRequest("one part of the model is given twice")
    return [numbered[number] for number in range(len(headers))]


def _rewritten(
    layout: StoreLayout, source: Path, headers: Sequence[GgufHeader], text: str, level: str
) -> Generator[ProgressStatus, None, str]:
    sizes = {tensor.name: tensor.size for header in headers for tensor in header.tensors}
    status: ProgressStatus = {"status": text, "digest": _NO_DIGEST, "total": sum(sizes.values())}
    with layout.rewriting() as is_free:
        if not is_free:
            raise Busy("other models are being quantized or joined, please try again")
        layout.ensure_space(_min_file_bytes(headers, level))
        with NewFile(layout.blobs.folder) as target:
            try:
                for done in _tensors(_command(source, target.path, level)):
                    yield {**status, "completed": sum(sizes.get(name, 0) for name in done)}
            except EngineFailed:
                if not source.exists():
                    raise BadRequest("the model was removed meanwhile; try again") from None
                if free_bytes(layout.blobs.folder) < _FULL_BYTES:
                    raise StorageFailed(
                        f"no space left on the disk of the model store {layout.root}"
                    ) from None
                raise
            yield {**status, "completed": status["total"]}
            yield {"status": "verifying conversion"}
            _check(target.path, level)
            digest = yield from hash_file(target)
            layout.blobs.put_file(target, digest)
    return digest


def hash_file(file: NewFile) -> Generator[ProgressStatus, None, str]:
    """The digest of the written bytes. Yields the status ``verifying conversion`` now and then."""
    sha256 = hashlib.sha256()
    offset, pause_at = 0, time.monotonic() + STEP_S
    while data := file.read_at(offset, _READ_BYTES):
        sha256.update(data)
        offset += len(data)
        if time.monotonic() > pause_at:
            yield {"status": "verifying conversion"}
            pause_at = time.monotonic() + STEP_S
    return f"sha256:{sha256.hexdigest()}"


def _min_file_bytes(headers: Sequence[GgufHeader], level: str) -> int:
    """A lower bound of the result's size; vectors are not quantized."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    return sum(
        min_bytes(level, tensor.elements) if level and len(tensor.shape) > 1 else tensor.size
        for tensor in tensors
    )


def _check(path: Path, level: str) -> None:
    """The library's output is untrusted, too. :raises EngineFailed:"""
    try:
        summary = summarize(read_header(path))
    except BadRequest as error:
        raise EngineFailed(f"the engine library wrote a broken file: {error.message}") from None
    if summary.is_split or (level and summary.quantization != level):
        raise EngineFailed(f"the engine library wrote another kind of file: {summary.quantization}")


def _command(source: Path, target: Path, level: str) -> list[str]:
    line = [sys.executable, "-P", "-m", MODULE, "--source", str(source), "--target", str(target)]
    return [*line, "--file-type", str(FILE_TYPE_NUMBERS[level])] if level else line


def _tensors(line: list[str]) -> Iterator[list[str]]:
    """Run the command; every :data:`STEP_S` yields the names of the completed tensors.

    :raises EngineFailed: it failed.
    """
    begun: list[str] = []
    reason = ""
    # without GPUs: a CUDA context would take memory
    environ = {**native_environ(os.environ), "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        start_new_session=True,  # a Ctrl-C in the terminal does not reach it
    ) as process:
        try:
            assert process.stdout is not None
            for lines in _lines(process.stdout.fileno()):
                for kind, _, text in (line.partition(" ") for line in lines):
                    if kind == "tensor":
                        begun.append(text)
                    elif kind == "error":
                        reason = text
                yield begun[:-1]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        finally:
            process.kill()
    if process.returncode:
        reason = reason or _exit_reason(process.returncode)
        raise EngineFailed(f"the model could not be written: {reason}")


def _lines(descriptor: int) -> Iterator[list[str]]:
    """Lists of whole lines, one list (maybe empty) every :data:`STEP_S`, until end of file."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest, is_open = b"", True
    while is_open:
        deadline = time.monotonic() + STEP_S
        while is_open and (left_s := deadline - time.monotonic()) > 0:
            if poll.poll(left_s * 1000):
                data = os.read(descriptor, _READ_BYTES)
                rest, is_open = rest + data, bool(data)
        *lines, rest = rest.split(b"\n")
        yield [line.decode(errors="replace") for line in lines]


def _exit_reason(returncode: int) -> str:
    if returncode > 0:
        return f"the process ended with exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"the engine library crashed ({signal.Signals(-returncode).name})"
    return f"the engine library crashed (signal {-returncode})"
