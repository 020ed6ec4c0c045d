"""One answer on its way to one client: takes pieces from the queue, writes lines to the socket.

An :class:`Outbox` is the :class:`~ollama_async.queue.port.Sink` of one request. It knows three
states::

    holding ──attach()──▶ flowing ──client slow──▶ holding ──attach()──▶ flowing … ──▶ ended
       pieces gather         each piece becomes       pieces gather, to be
       in memory             one line at once         one line with all their text

Flowing costs no task switch: a piece schedules one flush at the end of the loop's turn, and the
flush writes finished bytes to the transport. The transport's own high-water mark says that the
client is slow: the outbox holds then and wakes the handler, which drains the socket (with a
deadline) and attaches again. So a client that keeps up gets one object per piece, memory is
bounded by the text's length whatever the client does, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from aiohttp import web

from ollama_async.errors import ServerError
from ollama_async.gateway.tally import Tally
from ollama_async.queue.port import Finish

MERGE_ABOVE = 8
"""More pieces than this in one turn of the loop: the loop is behind the producer, so they are
merged into one object; the bytes and the work per token fall by a factor of ten."""


class Lines(Protocol):
    """How one protocol writes a piece of an answer; ``piece`` returns one whole object."""

    @property
    def piece(self) -> Callable[[str], bytes]: ...


class Outbox:
    """The sink of one request. All methods run on the event loop; none blocks.

    ``gaps`` takes the seconds between two pieces. ``is_streamed`` false: the outbox holds all
    text until the end, for :meth:`take`.
    """

    __slots__ = (
        "_gaps",
        "_is_due",
        "_is_sealed",
        "_is_streamed",
        "_last_at",
        "_lines",
        "_loop",
        "_pieces",
        "_request",
        "_transport",
        "_waiter",
        "error",
        "finish",
        "first_at",
        "load_ns",
        "started_at",
    )

    def __init__(self, lines: Lines, gaps: Tally, *, is_streamed: bool) -> None:
        self.finish: Finish | None = None
        self.error: ServerError | None = None
        self.load_ns = 0
        self.started_at: float | None = None
        self.first_at: float | None = None
        self._last_at = 0.0
        self._lines = lines
        self._gaps = gaps
        self._is_streamed = is_streamed
        self._is_due = not is_streamed
        self._is_sealed = False
        self._pieces: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._request: web.Request | None = None
        self._transport: asyncio.Transport | None = None

    # -- what the queue calls -------------------------------------------------------------------

    def started(self, load_ns: int) -> None:
        self.load_ns = load_ns
        self.started_at = perf_counter()

    def text(self, text: str) -> None:
        now = perf_counter()
        if self._last_at:
            self._gaps.observe(now - self._last_at)
        else:
            self.first_at = now
        self._last_at = now
        self._pieces.append(text)
        if self._is_due:
            return
        self._is_due = True
        if self._transport is None:
            self._wake()
        else:
            self._loop.call_soon(self._flush)

    def finished(self, finish: Finish) -> None:
        self.finish = finish
        self._wake()

    def failed(self, error: ServerError) -> None:
        self.error = error
        self._wake()

    def may_restart(self) -> bool:
        if self._is_sealed:
            return False
        self._pieces.clear()
        self._is_due = not self._is_streamed
        self.first_at = None
        self._last_at = 0.0
        return True

    # -- what the handler calls -----------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self.finish is not None or self.error is not None

    @property
    def has_text(self) -> bool:
        return bool(self._pieces)

    @property
    def phase(self) -> str:
        """``queue`` (no slot yet), ``prefill`` (no text yet) or ``decode``."""
        if self.started_at is None:
            return "queue"
        return "decode" if self.first_at is not None else "prefill"

    def seal(self) -> None:
        """Bytes are about to be sent: from here the answer cannot start again."""
        self._is_sealed = True

    def take(self) -> str:
        """All text that was not written yet; the outbox forgets it."""
        text = "".join(self._pieces)
        self._pieces.clear()
        return text

    async def wake(self) -> None:
        """Wait until there is something to do: the end, the first text, or a slow client.

        May be cancelled at any time without a loss. It has no deadline of its own: the queue ends
        every job (its load, stall and shutdown limits), and the client's leaving cancels us.
        """
        if self.has_ended or (self._transport is None and self._is_streamed and self._pieces):
            return
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def attach(self, request: web.Request) -> None:
        """Let text flow to the client; what gathered goes first, as one object.

        The response's headers must have been sent, and the socket drained.

        :raises ConnectionResetError: the client is gone.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._request, self._transport = request, transport
        self._is_due = False
        if self._pieces:
            transport.write(frame(request, self._lines.piece(self.take())))

    # -- inside ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        request, transport = self._request, self._transport
        if transport is None or request is None or not self._pieces:
            return
        if transport.is_closing() or request.protocol.writing_paused:
            self._transport = None  # hold; ``_is_due`` stays true, so no flush is scheduled
            self._wake()
            return
        self._is_due = False
        pieces, line = self._pieces, self._lines.piece
        if len(pieces) == 1:
            data = line(pieces[0])
        elif len(pieces) > MERGE_ABOVE:
            data = line("".join(pieces))
        else:
            data = b"".join([line(piece) for piece in pieces])
        pieces.clear()
        transport.write(frame(request, data))


def frame(request: web.Request, data: bytes) -> bytes:
    """``data`` as one HTTP/1.1 chunk; HTTP/1.0 clients read to the end of the connection.

    Written straight to the transport this costs a third of ``StreamResponse.write``.
    """
    if request.version.minor == 0:
        return data
    return b"%x\r\n%b\r\n" % (len(data), data)
