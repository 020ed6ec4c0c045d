"""What a child must say before it may be asked anything: Hello, Loading …, Ready or Refused.

Pure: messages in, an outcome out. The clock and the killing are :mod:`.link`'s.
"""

from __future__ import annotations

from ollama_async.workers.messages import (
    PROTOCOL,
    Hello,
    Loading,
    Ready,
    Refused,
    ToParent,
)


class OutOfTurn(Exception):
    """The child must not be trusted; the text says why."""


class Handshake:
    """One child's beginning; ``generation`` and ``pid`` are the ones it was spawned with."""

    def __init__(self, *, generation: int, pid: int) -> None:
        self._generation = generation
        self._pid = pid
        self._is_greeted = False

    def hear(self, message: ToParent) -> Ready | Refused | None:
        """Take the next message: how the start ended, or None while it goes on. Not to be called
        after the end.

        :raises OutOfTurn: another protocol, another child, or a message that has no place here.
        """
        if not self._is_greeted and isinstance(message, Hello):
            self._check(message)
            self._is_greeted = True
            return None
        if self._is_greeted and isinstance(message, Loading | Ready | Refused):
            return None if isinstance(message, Loading) else message
        raise OutOfTurn(f"the worker spoke out of turn: {type(message).__name__}")

    def _check(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise OutOfTurn(f"the worker speaks protocol {hello.protocol}, this server {PROTOCOL}")
        if (hello.generation, hello.pid) != (self._generation, self._pid):
            raise OutOfTurn(
                f"a worker of generation {hello.generation}, pid {hello.pid} answered; expected"
                f" {self._generation}, {self._pid}"
            )
