"""Everything that a new worker and its parent share: two rings, two doorbells, one lifeline.

The lifeline is an ordinary pipe of which only the parent holds the writing end: when that is gone,
whatever the reason, the child reads end-of-file. (The parent hears of the child's end by a pidfd.)
All descriptors are close-on-exec; the child gets the five it needs by ``pass_fds``.

No open file that the parent uses is one that the child holds: what flags the child sets on its ends
concerns the child only. The parent keeps the child's ends of the doorbells open, unused, so that a
child that closes them does not leave the loop with a descriptor that is readable for ever.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

from ollama_async.workers.doorbell import Listener, Ringer, make_doorbell
from ollama_async.workers.pipe import TO_CHILD_RING_BYTES, TO_PARENT_RING_BYTES, ParentPipe
from ollama_async.workers.ring import Ring


class Channel:
    """Made before the child, closed after its death.

    ``pipe`` is the parent's end; not opened yet.

    :raises OSError: there are no descriptors or no memory left; nothing is left behind.
    """

    def __init__(
        self,
        *,
        to_child_bytes: int = TO_CHILD_RING_BYTES,
        to_parent_bytes: int = TO_PARENT_RING_BYTES,
    ) -> None:
        with ExitStack() as made:
            down = made.enter_context(closing(Ring.create(to_child_bytes)))
            up = made.enter_context(closing(Ring.create(to_parent_bytes)))
            child_hears, parent_rings = _ends(made)
            parent_hears, child_rings = _ends(made)
            self._lifeline_child, self._lifeline = os.pipe()
            made.pop_all()
        self.pipe = ParentPipe(
            inbound=up, outbound=down, bell_in=parent_hears, bell_out=parent_rings
        )
        self._childs_ends = child_hears, child_rings
        self._child_fds = {
            "ring-in": down.fd,
            "ring-out": up.fd,
            "bell-in": child_hears.fd,
            "bell-out": child_rings.fd,
            "lifeline": self._lifeline_child,
        }

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors to hand to the child; valid until :meth:`spawned`."""
        return tuple(self._child_fds.values())

    def argv(self, *, generation: int) -> list[str]:
        """The options that :func:`ollama_async.workers.child.process_setup.attach` reads."""
        options = {**self._child_fds, "parent": os.getpid(), "generation": generation}
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def spawned(self) -> None:
        """The child has its copies: let go of the lifeline's end that is only its own."""
        if self._lifeline_child >= 0:
            os.close(self._lifeline_child)
            self._lifeline_child = -1

    def cut_lifeline(self) -> None:
        """Make the child see that it is alone: it ends at once. Idempotent."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self.spawned()
        self.cut_lifeline()
        self.pipe.close()
        for end in self._childs_ends:
            end.close()


def _ends(made: ExitStack) -> tuple[Listener, Ringer]:
    listener, ringer = make_doorbell()
    return made.enter_context(closing(listener)), made.enter_context(closing(ringer))
