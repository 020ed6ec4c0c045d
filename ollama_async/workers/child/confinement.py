"""What a worker may no longer ask of the kernel once its model is loaded, if there is libseccomp.

From then on the native library only computes, on files and devices that are open, and a worker that
a model's file has taken over finds no network, starts no program, and reaches no other process of
its user. What it may still do is listed in ``SECURITY.md``.
"""

from __future__ import annotations

import ctypes
import errno
import os

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_SYNCHRONIZE_THREADS = 4  # SCMP_FLTATR_CTL_TSYNC
_NOT_EQUAL = 1  # SCMP_CMP_NE

_REFUSED = (
    # networks and other people's sockets; io_uring could open them unseen
    *("socket", "connect", "bind", "listen", "accept", "accept4", "io_uring_setup"),
    # programs
    *("execve", "execveat"),
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "tkill", "rt_sigqueueinfo"),
    "rt_tgsigqueueinfo",
    # what can make another process wait, for a page fault of ours
    *("userfaultfd", "vmsplice", "fanotify_init"),
    # the kernel's wider surface
    *("mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "pivot_root", "chroot"),
    *("unshare", "setns", "bpf", "perf_event_open", "keyctl", "add_key", "request_key"),
    *("init_module", "finit_module", "kexec_load", "open_by_handle_at", "personality"),
)
_ONLY_OURSELVES = ("kill", "tgkill")
_ONLY_BY_NO_NUMBER = ("prlimit64",)  # 0 is whoever asks


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def confine() -> bool:
    """Let all threads of this process do no more than it says above; for ever. False: it cannot be
    had here. ``PR_SET_NO_NEW_PRIVS`` must be set.
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
        for names, ours in ((_ONLY_OURSELVES, os.getpid()), (_ONLY_BY_NO_NUMBER, 0)):
            for name in names:
                _refuse(library, rules, name, _Comparison(0, _NOT_EQUAL, ours, 0))
        return bool(library.seccomp_load(rules) == 0)
    finally:
        library.seccomp_release(rules)


def _refuse(
    library: ctypes.CDLL, rules: ctypes.c_void_p, name: str, *conditions: _Comparison
) -> None:
    """A call that this kernel or library does not know needs no rule."""
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        array = (_Comparison * len(conditions))(*conditions)
        library.seccomp_rule_add_array(
            rules, ctypes.c_uint32(_REFUSE), number, len(conditions), array
        )
