"""Setup of a worker process: it opens its pipe, dies with its parent, and drops system calls.

``--ring-in FD --ring-out FD --bell-in FD --bell-out FD --lifeline FD --parent PID --generation N``
come from :class:`ollama_async.workers.pipe.Channel`. Every other ``--name value`` is a load option.

- Threads: one daemon, ``lifeline``, which blocks until the parent is gone and then ends the process
  at once: an orderly exit could wait for a lock, or for memory.
- Dies when: the parent does, in two ways, because each has a gap. PR_SET_PDEATHSIG misses a parent
  that died before the call (hence the getppid check), and follows the parent's *thread* that
  spawned us. The lifeline thread cannot run while native code holds the interpreter lock.

:func:`restrict_system_calls`: after the model is loaded, the native library only computes, on open
files and devices. So if a model file takes the worker over, it finds no network, starts no program,
and reaches no other process of its user. ``SECURITY.md`` lists what remains.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ollama_async.workers.child.pipe import ChildPipe
from ollama_async.workers.doorbell import BlockingDoorbellReader, DoorbellWriter
from ollama_async.workers.ring import Ring

ORPHANED = 86
"""Exit status of a worker whose parent is gone."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_STEP, _MOST_OOM_SCORE = 500, 1000


class _Wiring(msgspec.Struct, rename="kebab"):
    ring_in: int
    ring_out: int
    bell_in: int
    bell_out: int
    lifeline: int
    parent: int
    generation: int


def attach(argv: Sequence[str]) -> tuple[ChildPipe, int, dict[str, str]]:
    """Bind this process to its parent and open the pipe. Call it once, first, on the main thread.

    ``argv`` excludes the program's name. Does not return if the parent is gone already. Returns the
    pipe, the generation to echo in ``Hello``, and the other options of the argv.

    :raises SystemExit: the argv is invalid; the text says why.
    :raises RingCorrupt: the descriptors are not rings of this version.
    """
    options = read_options(argv)
    try:
        wiring = msgspec.convert(options, _Wiring, strict=False)
    except msgspec.ValidationError as reason:
        raise SystemExit(f"worker: {reason}") from None
    _lower_privileges()  # before there are other threads, which would keep theirs
    os.set_inheritable(wiring.lifeline, False)
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != wiring.parent:
        os._exit(ORPHANED)
    threading.Thread(target=_watch, args=(wiring.lifeline,), name="lifeline", daemon=True).start()
    pipe = ChildPipe(
        inbound=Ring.attach(wiring.ring_in),
        outbound=Ring.attach(wiring.ring_out),
        bell_in=BlockingDoorbellReader(wiring.bell_in),
        bell_out=DoorbellWriter(wiring.bell_out),
    )
    ours = {field.encode_name for field in msgspec.structs.fields(_Wiring)}
    rest = {name: value for name, value in options.items() if name not in ours}
    return pipe, wiring.generation, rest


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


def _lower_privileges() -> None:
    """Gain no privileges by executing programs; when memory runs out, die before the parent."""
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


_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_SYNCHRONIZE_THREADS = 4  # SCMP_FLTATR_CTL_TSYNC
_NOT_EQUAL = 1  # SCMP_CMP_NE

_REFUSED = (
    # networks and other processes' sockets; io_uring could open them unseen
    *("socket", "connect", "bind", "listen", "accept", "accept4", "io_uring_setup"),
    # programs
    *("execve", "execveat"),
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "tkill", "rt_sigqueueinfo"),
    "rt_tgsigqueueinfo",
    # what can make another process wait for a page fault of ours
    *("userfaultfd", "vmsplice", "fanotify_init"),
    # the kernel's wider surface
    *("mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "pivot_root", "chroot"),
    *("unshare", "setns", "bpf", "perf_event_open", "keyctl", "add_key", "request_key"),
    *("init_module", "finit_module", "kexec_load", "open_by_handle_at", "personality"),
)


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def restrict_system_calls() -> bool:
    """Refuse the system calls above to all threads, irrevocably. False if libseccomp is missing.

    ``PR_SET_NO_NEW_PRIVS`` must be set.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if rules.value is None:
        return False
    try:
        if library.seccomp_attr_set(rules, _SYNCHRONIZE_THREADS, 1) != 0:
            return False
        for name in _REFUSED:
            _refuse(library, rules, name)
        own_pid = os.getpid()
        for name, pid in (("kill", own_pid), ("tgkill", own_pid), ("prlimit64", 0)):
            _refuse(library, rules, name, _Comparison(0, _NOT_EQUAL, pid, 0))
        return bool(library.seccomp_load(rules) == 0)
    finally:
        library.seccomp_release(rules)


def _refuse(
    library: ctypes.CDLL, rules: ctypes.c_void_p, name: str, *conditions: _Comparison
) -> None:
    """Skips calls that this kernel or library does not know."""
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        array = (_Comparison * len(conditions))(*conditions)
        library.seccomp_rule_add_array(
            rules, ctypes.c_uint32(_REFUSE), number, len(conditions), array
        )
