"""Blobs made of blobs: a model quantized, or one that came in parts joined.

The library does it, in a process of its own (:mod:`ollama_async.native.quantize`), because native
code may crash, and cannot be stopped half-way. It writes into a temporary file among the blobs,
which becomes one when its header was found sound. Whoever closes a generator of this module ends
the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from ollama_async.core.errors import BadRequest, Busy, EngineFailed, StorageFailed
from ollama_async.core.native_environ import native_environ
from ollama_async.create.levels import SOURCES, least_bytes, number_of
from ollama_async.gguf.reader import GgufHeader, read_header
from ollama_async.gguf.summary import facts_of
from ollama_async.store.files import NewFile
from ollama_async.store.layout import Shelf

Status = dict[str, Any]

MODULE = "ollama_async.native.quantize"
STEP_S = 0.2
"""Between two statuses, and how long a step may block."""

_NO_DIGEST = "0" * 19
"""What Ollama says for the digest of a file that is being made."""
_READ_BYTES = 1 << 20
_END_S = 10.0
_FULL_BYTES = 1 << 20


def quantized(shelf: Shelf, digest: str, level: str) -> Generator[Status, None, str]:
    """Quantize the model ``digest`` to ``level``, one of :data:`.levels.LEVELS`.

    Yields statuses every :data:`STEP_S` and returns the digest of the result, which is in the
    store; ``digest`` itself if it has that level.

    :raises BadRequest: the source has been quantized already, or removed meanwhile.
    :raises Busy: too many other models are being rewritten.
    :raises EngineFailed: the library cannot read it, or crashed.
    :raises StorageFailed: disk full or not writable.
    """
    before = shelf.facts.facts(digest).quantization
    if before == level:
        return digest
    if before not in SOURCES:
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    status = f"quantizing {before} model to {level}"
    source = shelf.blobs.path(digest)
    return (yield from _rewritten(shelf, source, [read_header(source)], status, level))


def joined(shelf: Shelf, digests: Sequence[str]) -> Generator[Status, None, str]:
    """Make one file of the parts of a model; otherwise as :func:`quantized`.

    :raises BadRequest: they are not the parts of one model, each of them once.
    """
    headers = {digest: read_header(shelf.blobs.path(digest)) for digest in digests}
    ordered = _in_order(headers)
    with tempfile.TemporaryDirectory(prefix="ollama_async-") as folder:
        names = [f"part-{n:05}-of-{len(ordered):05}.gguf" for n in range(1, len(ordered) + 1)]
        for name, digest in zip(names, ordered, strict=True):
            (Path(folder) / name).symlink_to(shelf.blobs.path(digest).absolute())
        source = Path(folder) / names[0]
        return (
            yield from _rewritten(shelf, source, list(headers.values()), "joining GGUF files", "")
        )


def _in_order(headers: dict[str, GgufHeader]) -> list[str]:
    """Their digests as they are numbered. :raises BadRequest:"""
    counts = {header.metadata.get("split.count") for header in headers.values()}
    numbered = {header.metadata.get("split.no"): digest for digest, header in headers.items()}
    if len(counts) > 1:
        raise BadRequest("the files are parts of different models")
    if counts != {len(headers)}:
        raise BadRequest(f"{len(headers)} of {next(iter(counts))} parts of the model are given")
    if set(numbered) != set(range(len(headers))):
        raise BadRequest("one part of the model is given twice")
    return [numbered[number] for number in range(len(headers))]


# ----------------------------------------------------------------- one rewritten file


def _rewritten(
    shelf: Shelf, source: Path, headers: Sequence[GgufHeader], text: str, level: str
) -> Generator[Status, None, str]:
    sizes = {tensor.name: tensor.size for header in headers for tensor in header.tensors}
    status = {"status": text, "digest": _NO_DIGEST, "total": sum(sizes.values())}
    with shelf.rewriting() as is_free:
        if not is_free:
            raise Busy("other models are being quantized or joined, please try again")
        shelf.make_room(_least_bytes(headers, level))
        with NewFile(shelf.blobs.folder) as target:
            try:
                for done in _tensors(_command(source, target.path, level)):
                    yield {**status, "completed": sum(sizes.get(name, 0) for name in done)}
            except EngineFailed:
                if not source.exists():
                    raise BadRequest("the model was removed meanwhile; try again") from None
                if shutil.disk_usage(shelf.blobs.folder).free < _FULL_BYTES:
                    raise StorageFailed(
                        f"no space left on the disk of the model store {shelf.root}"
                    ) from None
                raise
            yield {**status, "completed": status["total"]}
            yield {"status": "verifying conversion"}
            _check(target.path, level)
            digest = yield from hashed(target)
            shelf.blobs.adopt(target, digest)
    return digest


def hashed(file: NewFile) -> Generator[Status, None, str]:
    """The digest of what has been written; now and then the status ``verifying conversion``."""
    sha256 = hashlib.sha256()
    offset, pause_at = 0, time.monotonic() + STEP_S
    while data := file.read_at(offset, _READ_BYTES):
        sha256.update(data)
        offset += len(data)
        if time.monotonic() > pause_at:
            yield {"status": "verifying conversion"}
            pause_at = time.monotonic() + STEP_S
    return f"sha256:{sha256.hexdigest()}"


def _least_bytes(headers: Sequence[GgufHeader], level: str) -> int:
    """What the result takes at the least; vectors stay as they are."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    return sum(
        least_bytes(level, tensor.elements) if level and len(tensor.shape) > 1 else tensor.size
        for tensor in tensors
    )


def _check(path: Path, level: str) -> None:
    """What the library wrote is from outside, too. :raises EngineFailed:"""
    try:
        facts = facts_of(read_header(path))
    except BadRequest as error:
        raise EngineFailed(f"the engine library wrote a broken file: {error.message}") from None
    if facts.is_split or (level and facts.quantization != level):
        raise EngineFailed(f"the engine library wrote another kind of file: {facts.quantization}")


def _command(source: Path, target: Path, level: str) -> list[str]:
    line = [sys.executable, "-P", "-m", MODULE, "--source", str(source), "--target", str(target)]
    return [*line, "--file-type", str(number_of(level))] if level else line


# ----------------------------------------------------------------- the process


def _tensors(line: list[str]) -> Iterator[list[str]]:
    """Run it to its end; every :data:`STEP_S` the names of the tensors that it is done with.

    :raises EngineFailed: it could not do it, and why.
    """
    begun: list[str] = []
    reason = ""
    environ = {
        **native_environ(os.environ),
        "CUDA_VISIBLE_DEVICES": "",
    }  # a context there would cost memory
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        start_new_session=True,  # a Ctrl-C in the terminal is for us
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
        raise EngineFailed(f"the model could not be written: {reason or _end(process.returncode)}")


def _lines(descriptor: int) -> Iterator[list[str]]:
    """Whole lines, those of :data:`STEP_S` together, maybe none; until the other side closes."""
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


def _end(returncode: int) -> str:
    if returncode > 0:
        return f"the process ended with exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"the engine library crashed ({signal.Signals(-returncode).name})"
    return f"the engine library crashed (signal {-returncode})"
