"""Takes real workers over: with its folder in ``PYTHONPATH``, the interpreter runs this first. What
is done is named by ``OLLAMA_ASYNC_TEST_CAPTURE``, and only as long as that file exists.
"""

import contextlib
import fcntl
import mmap
import os
import sys
import threading
from pathlib import Path


def attack_bells():
    """Fill what the parent rings with and hears, and let none of it be non-blocking."""
    for name in ("--bell-in", "--bell-out"):
        fd = int(sys.orig_argv[sys.orig_argv.index(name) + 1])
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        for data in (b"\xfe" + b"\xff" * 7, b"x" * 4096, b"x"):
            with contextlib.suppress(OSError):
                for _ in range(100):
                    os.write(fd, data)
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)


def attack_log():
    while True:
        os.write(2, b"INFO all is well, and will be for ever and ever\n" * 1000)


def attack_memory():
    """Take all that there may be, but for what an interpreter needs."""
    with contextlib.suppress(OSError):
        while True:
            held.append(mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    del held[-10:]


held = []
order = Path(os.environ.get("OLLAMA_ASYNC_TEST_CAPTURE", "/nowhere"))
if "ollama_async.workers.child" in sys.orig_argv and order.exists():
    if order.name == "memory":
        attack_memory()
    else:
        threading.Thread(target=globals()[f"attack_{order.name}"], daemon=True).start()
