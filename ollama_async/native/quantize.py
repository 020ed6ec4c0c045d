"""Quantizes a GGUF file or joins its parts, in a separate process, which may crash.

Runs in: ``python -P -m ollama_async.native.quantize``, started by
:mod:`ollama_async.create.quantize`. Reads: ``--source`` (of a model in parts the first one; the
others are beside it under the names that llama.cpp expects), ``--target``, ``--file-type``
(llama.cpp's number; without it tensors are copied unchanged) and stdin, whose end cancels the work.
Prints: ``tensor NAME`` when it begins with a tensor and ``error TEXT`` when it fails. Exit status:
0, or 1 after an error; anything else is a crash. Ends when: done, or with its parent.

It has a low CPU priority, so that it does not slow down answers.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
import threading
from typing import Any

NICENESS = 10
BUFFER_BYTES = 1 << 30
"""For rows; the library's default is eight times as large."""

_ERROR = 4
_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (.+?) +- \[")
_REASON = re.compile(r"failed to quantize: (.+)")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--file-type", type=int)
    options = parser.parse_args()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.nice(NICENESS)
    try:
        import llama_cpp  # noqa: PLC0415  # a library that cannot be loaded is reported
    except (ImportError, OSError, RuntimeError, AttributeError) as reason:
        return _failed(f"the engine library cannot be loaded: {reason}")
    return _rewrite(llama_cpp, options)


def _exit_with_parent() -> None:
    """Stdin is closed whenever the parent ends. Native code lets this thread run."""
    while os.read(0, 1):  # not sys.stdin: a locked one crashes the interpreter's exit
        pass
    os._exit(1)


def _rewrite(native: Any, options: argparse.Namespace) -> int:
    reasons: list[str] = []

    def listen(level: int, raw: bytes, _data: object) -> None:
        text = raw.decode(errors="replace")
        if tensor := _TENSOR.match(text):
            print(f"tensor {tensor[1]}", flush=True)  # noqa: T201  # the parent reads it
        elif level == _ERROR and (reason := _REASON.search(text)):
            reasons.append(reason[1].strip().replace(options.source, "the file"))

    callback = native.llama_log_callback(listen)
    native.llama_log_set(callback, ctypes.c_void_p(0))
    native.llama_backend_init()
    parameters = native.llama_model_quantize_default_params()
    parameters.nthread = len(os.sched_getaffinity(0))
    parameters.max_buf_size = BUFFER_BYTES
    if options.file_type is None:
        parameters.only_copy = True
    else:
        parameters.ftype = options.file_type
    source, target = os.fsencode(options.source), os.fsencode(options.target)
    if native.llama_model_quantize(source, target, ctypes.byref(parameters)):
        return _failed(reasons[-1] if reasons else "the library gave no reason")
    return 0


def _failed(reason: str) -> int:
    print("error", " ".join(reason.split()), flush=True)  # noqa: T201  # the parent reads it
    return 1


if __name__ == "__main__":
    sys.exit(main())
