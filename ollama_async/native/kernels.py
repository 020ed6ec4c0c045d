"""Our own kernels, loaded beside the engine library; see docs/adr/0009-kernels.md.

A process that uses them imports ``llama_cpp`` first and registers them before its first model. A
fault in them ends the process: :mod:`.check` tries them in another one first.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_async.native.build import BuildFailed
from ollama_async.native.kernel_build import find_engine, installed_path

AUTO, STOCK = "auto", "stock"
"""Choices beside the names of instruction sets, see ``OLLAMA_ASYNC_KERNELS``."""


class KernelsUnusable(Exception):
    """There are none for this engine and this machine; the text says why."""


class _Usage(ctypes.Structure):
    _fields_ = (
        ("products", ctypes.c_int64),
        ("attentions", ctypes.c_int64),
        ("variant", ctypes.c_char_p),
    )


class Usage:
    """What was computed while something was recorded: ops that the kernels took over, by kind, and
    the names of ops of stock whose results depend on more than their own row.
    """

    products = 0
    attentions = 0
    variant: tuple[str, ...] = ()


class Kernels:
    """The registered kernels; one object in a process, which cannot get rid of them again.

    ``choice``: the instruction set, or the best of this machine for :data:`AUTO`.

    :raises KernelsUnusable: see the class.
    """

    def __init__(self, environ: Mapping[str, str], choice: str = AUTO) -> None:
        try:
            path = installed_path(find_engine(environ))
            native = ctypes.CDLL(str(path))
        except BuildFailed as reason:
            raise KernelsUnusable(str(reason)) from reason
        except OSError as reason:
            raise KernelsUnusable(f"they cannot be loaded: {reason}") from reason
        self._native = _declare(native)
        if not native.own_select_isa(b"" if choice == AUTO else choice.encode()):
            raise KernelsUnusable(f"this processor lacks {choice}")
        if not native.own_register():
            raise KernelsUnusable("this processor lacks all instruction sets that they are for")
        self.isa: str = native.own_isa().decode()

    def configure_packing(self, threads: int, *, is_mapped: bool) -> None:
        """How the next model is loaded. ``is_mapped``: its file, whose pages are given back."""
        self._native.own_configure_packing(threads, is_mapped)

    def set_attention(self, is_on: bool) -> None:
        """Whether attention is computed here, too; it is at first."""
        self._native.own_set_attention(is_on)

    def watch(self, memory: Any) -> None:
        """Visit keys in the order of positions in this memory of a context."""
        self._native.own_watch(memory)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[Usage]:
        """Record what is computed meanwhile; the result is complete at the end."""
        usage = Usage()
        self._native.own_begin_recording()
        try:
            yield usage
        finally:
            found = self._native.own_end_recording()
            usage.products, usage.attentions = found.products, found.attentions
            usage.variant = tuple(found.variant.decode().split())

    def find_fault(self, *, is_full: bool) -> tuple[str, list[str]]:
        """What is wrong with them here, or "", and the types of weights that were tried."""
        fault, _, types = self._native.own_self_check(is_full).decode().partition("\n")
        return fault, types.split()


def _declare(native: ctypes.CDLL) -> ctypes.CDLL:
    """:raises KernelsUnusable: it lacks a function."""
    functions: dict[str, tuple[Any, list[Any]]] = {
        "own_select_isa": (ctypes.c_bool, [ctypes.c_char_p]),
        "own_register": (ctypes.c_bool, []),
        "own_isa": (ctypes.c_char_p, []),
        "own_configure_packing": (None, [ctypes.c_int, ctypes.c_bool]),
        "own_set_attention": (None, [ctypes.c_bool]),
        "own_watch": (ctypes.c_bool, [ctypes.c_void_p]),
        "own_begin_recording": (None, []),
        "own_end_recording": (_Usage, []),
        "own_self_check": (ctypes.c_char_p, [ctypes.c_bool]),
    }
    for name, (result, arguments) in functions.items():
        try:
            function = getattr(native, name)
        except AttributeError as reason:
            raise KernelsUnusable(str(reason)) from reason
        function.restype, function.argtypes = result, arguments
    return native
