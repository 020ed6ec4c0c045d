"""How a fresh worker process finds its parent: from its argv, before anything else is imported.

``--ring-in FD --ring-out FD --bell-in FD --bell-out FD --lifeline FD --parent PID --generation N``
come from :mod:`ollama_async.workers.channel`; every other ``--name value`` is the worker's own.

- Threads: one daemon, ``lifeline``, which blocks until the parent is gone and then ends the process
  without ceremony: an orderly exit could wait for a lock, or for memory.
- Dies when: the parent does. Twice over, because each way has a hole: PR_SET_PDEATHSIG is not seen
  by a process that called it after the parent's death (hence the look at getppid afterwards) and
  follows the parent's *thread* that spawned us; the lifeline's thread cannot run while native code
  holds the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ollama_async.workers.child.pipe import ChildPipe
from ollama_async.workers.doorbell import BlockingListener, Ringer
from ollama_async.workers.ring import Ring

ORPHANED = 86
"""Exit status of a worker whose parent has gone."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_STEP, _MOST_OOM_SCORE = 500, 1000


class _Wiring(msgspec.Struct, rename="kebab"):
    """The options that are ours."""

    ring_in: int
    ring_out: int
    bell_in: int
    bell_out: int
    lifeline: int
    parent: int
    generation: int


class Attachment(msgspec.Struct):
    """``generation`` belongs into ``Hello``; ``options`` is what else stood in the argv."""

    pipe: ChildPipe
    generation: int
    options: dict[str, str]


def attach(argv: Sequence[str]) -> Attachment:
    """Bind this process to its parent and open the pipe. Call it once, first, on the main thread.

    ``argv`` is without the program's name. Does not return if the parent is gone already.

    :raises SystemExit: the argv cannot be read; the text says why.
    :raises RingCorrupt: the descriptors are no rings of this version.
    """
    options = read_options(argv)
    try:
        wiring = msgspec.convert(options, _Wiring, strict=False)
    except msgspec.ValidationError as reason:
        raise SystemExit(f"worker: {reason}") from None
    _stand_back()  # before there are other threads, which would keep their rights
    _die_with(wiring.parent, wiring.lifeline)
    pipe = ChildPipe(
        inbound=Ring.attach(wiring.ring_in),
        outbound=Ring.attach(wiring.ring_out),
        bell_in=BlockingListener(wiring.bell_in),
        bell_out=Ringer(wiring.bell_out),
    )
    ours = {field.encode_name for field in msgspec.structs.fields(_Wiring)}
    rest = {name: value for name, value in options.items() if name not in ours}
    return Attachment(pipe, wiring.generation, rest)


def read_options(argv: Sequence[str]) -> dict[str, str]:
    """``["--num-ctx", "4096", …]`` as ``{"num-ctx": "4096", …}``.

    :raises SystemExit: a name without dashes, without a value, or given twice.
    """
    options: dict[str, str] = {}
    for index in range(0, len(argv), 2):
        word, value = argv[index], argv[index + 1 : index + 2]
        name = word.removeprefix("--")
        if name == word or not name or not value or name in options:
            raise SystemExit(f"worker: cannot read option {word!r}")
        options[name] = value[0]
    return options


def _die_with(parent: int, lifeline: int) -> None:
    os.set_inheritable(lifeline, False)
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()


def _stand_back() -> None:
    """Be the one that the kernel kills when memory runs out, before the parent; and never become
    more than this user may be, whatever is executed from here.
    """
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    try:
        score = int(_OOM_SCORE.read_text())
        _OOM_SCORE.write_text(str(min(score + _OOM_STEP, _MOST_OOM_SCORE)))
    except OSError as reason:  # no /proc here
        print(f"worker: {_OOM_SCORE}: {reason}", file=sys.stderr)  # noqa: T201  # stderr is the log


def _control(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        print(f"worker: prctl {option} failed: {reason}", file=sys.stderr)  # noqa: T201  # as above


def _watch(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass  # nothing is ever written; only the end counts
    os._exit(ORPHANED)
