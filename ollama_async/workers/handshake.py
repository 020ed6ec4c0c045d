"""What a child must say before it may be asked anything: Hello, Loading …, Ready or Refused.

Pure: messages in, an outcome out. The clock and the killing are :mod:`.client`'s.
"""

from __future__ import annotations

import msgspec

from ollama_async.workers.load_spec import ResourceLimits
from ollama_async.workers.messages import (
    PROTOCOL,
    Hello,
    Loading,
    Ready,
    Refused,
    ToParent,
)

_MOST_BYTES = 1 << 62
_MOST_WARNINGS = 16
_WARNING_CHARACTERS = 1000


class ProtocolViolation(Exception):
    """The child must not be trusted; the text says why."""


class Handshake:
    """One child's beginning; ``generation``, ``pid`` and ``bounds`` are the ones it was spawned
    with.
    """

    def __init__(self, *, generation: int, pid: int, bounds: ResourceLimits) -> None:
        self._generation = generation
        self._pid = pid
        self._bounds = bounds
        self._is_greeted = False

    def hear(self, message: ToParent) -> Ready | Refused | None:
        """Take the next message: how the start ended, or None while it goes on. Not to be called
        after the end.

        :raises ProtocolViolation: another protocol, another child, or an unexpected message.
        """
        if not self._is_greeted and isinstance(message, Hello):
            self._check(message)
            self._is_greeted = True
            return None
        if self._is_greeted and isinstance(message, Loading | Ready | Refused):
            if isinstance(message, Ready):
                return _bounded(message, self._bounds)
            return None if isinstance(message, Loading) else message
        raise ProtocolViolation(f"the worker spoke out of turn: {type(message).__name__}")

    def _check(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise ProtocolViolation(
                f"the worker speaks protocol {hello.protocol}, this server {PROTOCOL}"
            )
        if (hello.generation, hello.pid) != (self._generation, self._pid):
            raise ProtocolViolation(
                f"a worker of generation {hello.generation}, pid {hello.pid} answered; expected"
                f" {self._generation}, {self._pid}"
            )


def _bounded(ready: Ready, bounds: ResourceLimits) -> Ready:
    """What there really is, within what was asked for.

    :raises ProtocolViolation: it cannot be.
    """
    sizes = (
        *(ready.slots, ready.num_ctx, ready.weights_bytes, ready.cache_bytes),
        *(ready.compute_bytes, ready.device_bytes),
    )
    if not all(0 <= size < _MOST_BYTES for size in sizes):
        raise ProtocolViolation("the worker counts what cannot be")
    return msgspec.structs.replace(
        ready,
        slots=min(ready.slots, bounds.slots),
        num_ctx=min(ready.num_ctx, bounds.num_ctx),
        warnings=[_printable(text) for text in ready.warnings[:_MOST_WARNINGS]],
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_WARNING_CHARACTERS])
