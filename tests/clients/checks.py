"""What the scripts of the Python clients share: the server's address, and how they report.

A script is a list of functions with :func:`check` that show a client, and ends with :func:`run`.
It needs a running server with the models of ``tests/clients/conftest.py``, and its packages::

    OLLAMA_HOST=http://127.0.0.1:11434 PYTHONPATH=tests/clients python -P tests/clients/python/…
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import os
import signal
import sys
import time
import traceback
import wave
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

SERVER = os.environ.get("OLLAMA_HOST", "http://127.0.0.1:11434")
LIMIT_S = 50

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
"""A PNG of one pixel, as base64."""

_checks: list[Callable[[], Any]] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Decorates a function, ``async`` or not, whose exceptions are the verdict."""
    _checks.append(function)
    return function


def run() -> None:
    """Run the checks in order; print a line of JSON for each: its name, and the error, if any."""
    for function in _checks:
        began = time.monotonic()
        error = None
        try:
            with _limit():
                asyncio.run(function()) if inspect.iscoroutinefunction(function) else function()
        except Exception as reason:  # noqa: BLE001  # whatever it is, it is the verdict
            error = _told(reason)
        seconds = round(time.monotonic() - began, 2)
        verdict = {"check": function.__name__, "seconds": seconds, "error": error}
        sys.stdout.write(f"{json.dumps(verdict)}\n")
        sys.stdout.flush()


def silence() -> bytes:
    """A second of it, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes(bytes(2 * 16_000))
    return file.getvalue()


class Raised:
    """What a block raised."""

    value: Any = None


@contextlib.contextmanager
def raises(kind: type[Exception], **fields: object) -> Iterator[Raised]:
    """The block must raise an error of this kind, with these attributes."""
    raised = Raised()
    try:
        yield raised
    except kind as error:
        raised.value = error
        found = {name: getattr(error, name) for name in fields}
        if found != fields:
            raise AssertionError(f"{error!r} with {found} instead of {fields}") from error
    else:
        raise AssertionError(f"no {kind.__name__}")


def _told(error: Exception) -> str:
    """The traceback, with the variables, from the check on."""
    frames = error.__traceback__ and error.__traceback__.tb_next
    told = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    return "".join(told.format())


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> NoReturn:
    raise TimeoutError(f"not finished within {LIMIT_S} s")
