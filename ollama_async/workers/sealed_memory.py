"""Memory that two processes map, in a ``memfd`` that neither can resize.

Sealed against growing and shrinking, so whoever maps it meets no SIGBUS, whatever the other process
does. It has no name that could be left behind, and is freed with its last descriptor and mapping.
"""

from __future__ import annotations

import fcntl
import os

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(name: str, size_bytes: int) -> int:
    """A close-on-exec descriptor of empty memory, which takes nothing until it is written.

    :raises OSError: there are no descriptors left.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
