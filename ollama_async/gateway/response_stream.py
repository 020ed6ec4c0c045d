"""One answer on its way to one client: takes pieces from the queue, writes lines to the socket.

An :class:`ResponseStream` is the :class:`~ollama_async.queue.backend.Sink` of one request. It knows three
states::

    holding ──attach()──▶ flowing ──client slow──▶ holding ──attach()──▶ flowing … ──▶ ended
       pieces gather         each piece becomes       pieces gather, to be
       in memory             one line at once         one line with all their text

Flowing costs no task switch: an outbox that got a piece is flushed at the end of the loop's turn,
together with all others (:class:`Flusher`), and the flush writes finished bytes to the transport.
The transport's own high-water mark says that the client is slow: the outbox holds then and wakes
the handler, which drains the socket (with a deadline) and attaches again. So a client that keeps
up gets one object per piece, and nothing is dropped. What is held is counted
(:class:`~ollama_async.gateway.send_budget.Reservation`); an answer that would hold too much ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from sys import getsizeof
from time import perf_counter
from typing import Protocol, cast

import msgspec
from aiohttp import web

from ollama_async.core.conversation import Thought, ToolCall
from ollama_async.core.errors import Busy, ServerError
from ollama_async.gateway.histogram import Histogram
from ollama_async.gateway.response_formats import AnswerContent, Piece, join_deltas, split_runs
from ollama_async.gateway.send_budget import FREE_BYTES, Reservation
from ollama_async.queue.backend import Finish

MERGE_ABOVE = 8
"""More pieces than this in one turn of the loop: the loop is behind the producer, so they are
merged into one object; the bytes and the work per token fall by a factor of ten."""

UNREAD_LIMIT_BYTES = 16 << 20
"""Of a streamed answer whose client reads slowly: two hundred thousand tokens as they lie in
memory, a lead that no reader catches up with."""


class Lines(Protocol):
    """How one protocol writes parts of an answer, each as one whole object: ``piece`` text,
    ``thought`` text of thoughts, ``calls`` tool calls.
    """

    @property
    def piece(self) -> Callable[[str], bytes]: ...

    @property
    def thought(self) -> Callable[[str], bytes]: ...

    def calls(self, calls: list[ToolCall]) -> bytes: ...


class Flusher:
    """Flushes every outbox that got text in this turn of the event loop: one callback for all.

    One callback for each would cost as much as writing the line.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: list[ResponseStream] = []

    def add(self, outbox: ResponseStream) -> None:
        if not self._due:
            asyncio.get_running_loop().call_soon(self._run)
        self._due.append(outbox)

    def _run(self) -> None:
        due, self._due = self._due, []
        for outbox in due:
            outbox.flush()


class ResponseStream:
    """The sink of one request. All methods run on the event loop; none blocks.

    ``gaps`` takes the seconds between two pieces. ``reservation`` is for what is held; its owner
    gives it back. ``is_streamed`` false: the outbox holds all text until the end, for :meth:`take`.
    """

    __slots__ = (
        "_flusher",
        "_gaps",
        "_has_parts",
        "_held_bytes",
        "_is_chunked",
        "_is_due",
        "_is_sealed",
        "_is_streamed",
        "_last_at",
        "_line",
        "_lines",
        "_pieces",
        "_protocol",
        "_reservation",
        "_transport",
        "_waiter",
        "error",
        "finish",
        "first_at",
        "load_ns",
        "started_at",
    )

    def __init__(
        self,
        lines: Lines,
        gaps: Histogram,
        flusher: Flusher,
        reservation: Reservation,
        *,
        is_streamed: bool,
    ) -> None:
        self.finish: Finish | None = None
        self.error: ServerError | None = None
        self.load_ns = 0
        self.started_at: float | None = None
        self.first_at: float | None = None
        self._last_at = 0.0
        self._lines = lines
        self._line = lines.piece
        self._gaps = gaps
        self._flusher = flusher
        self._reservation = reservation
        self._is_streamed = is_streamed
        self._is_due = not is_streamed
        self._is_sealed = False
        self._pieces: list[Piece] = []
        self._has_parts = False
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._protocol: web.RequestHandler | None = None
        self._is_chunked = True

    # -- what the queue calls -------------------------------------------------------------------

    def started(self, load_ns: int) -> None:
        self.load_ns = load_ns
        self.started_at = perf_counter()

    def part(self, part: Thought | ToolCall) -> None:
        self._has_parts = True
        self._held_bytes += _size(part)
        self.text(part)

    def text(self, text: Piece) -> None:
        if self.error is not None:  # the queue has not been told yet
            return
        now = perf_counter()
        if self._last_at:
            self._gaps.observe(now - self._last_at)
        else:
            self.first_at = now
        self._last_at = now
        self._pieces.append(text)
        self._held_bytes += getsizeof(text)
        if self._held_bytes > FREE_BYTES:
            self._reserve()
        if self._is_due:
            return
        self._is_due = True
        if self._transport is None:
            self._wake()
        else:
            self._flusher.add(self)

    def finished(self, finish: Finish) -> None:
        if self.error is None:
            self.finish = finish
        self._wake()

    def failed(self, error: ServerError) -> None:
        self.error = error
        self._wake()

    def may_restart(self) -> bool:
        if self._is_sealed:
            return False
        self._pieces.clear()
        self._held_bytes = 0
        self._has_parts = False
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
    def held_bytes(self) -> int:
        """Of text that has not left this process, as it lies in memory."""
        return self._held_bytes

    @property
    def phase(self) -> str:
        """``queue`` (no slot yet), ``prefill`` (no text yet) or ``decode``."""
        if self.started_at is None:
            return "queue"
        return "decode" if self.first_at is not None else "prefill"

    def seal(self) -> None:
        """Bytes are about to be sent: from here the answer cannot start again."""
        self._is_sealed = True

    def take(self) -> AnswerContent:
        """All that was not written yet; the outbox forgets it."""
        pieces, self._pieces = self._pieces, []
        return join_deltas(pieces)

    def take_lines(self) -> bytes:
        """As :meth:`take`, as few objects as keep its order."""
        pieces, self._pieces = self._pieces, []
        return b"".join([self._object(said) for said in split_runs(pieces)])

    async def wake(self) -> None:
        """Wait until there is something to do: the end, the first text, or a slow client.

        May be cancelled at any time without a loss. It has no deadline of its own: the queue ends
        every job (its load, stall and shutdown limits), and the client's leaving cancels us.
        """
        if self.has_ended or (self._transport is None and self._is_streamed and self._pieces):
            return
        self._waiter = asyncio.get_running_loop().create_future()
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
        self._transport, self._protocol = transport, request.protocol
        self._is_chunked = request.version.minor > 0
        self._is_due = False
        self._held_bytes = 0
        if self._pieces:
            data = self.take_lines()
            self._held_bytes = len(data)
            self._write(transport, data)

    # -- what the flusher calls -----------------------------------------------------------------

    def flush(self) -> None:
        """Write what came in this turn; or hold, if the client is slow or gone."""
        transport, protocol = self._transport, self._protocol
        if transport is None or protocol is None or not self._pieces:
            return
        if protocol.writing_paused or transport.is_closing():
            self._transport = None  # hold; ``_is_due`` stays true, so that no flush is asked for
            self._wake()
            return
        self._is_due = False
        self._held_bytes = 0
        if self._has_parts:
            self._write(transport, self.take_lines())
            return
        texts, self._pieces = cast("list[str]", self._pieces), []
        if len(texts) == 1:
            data = self._line(texts[0])
        elif len(texts) > MERGE_ABOVE:
            data = self._line("".join(texts))
        else:
            data = b"".join([self._line(text) for text in texts])
        self._write(transport, data)

    # -- inside ---------------------------------------------------------------------------------

    def _reserve(self) -> None:
        """For what is held; if that is too much, the answer ends here. A client that has been
        sent some of it is cut: the error would come after all that it does not read.
        """
        try:
            if self._is_streamed and self._held_bytes > UNREAD_LIMIT_BYTES:
                raise Busy("the answer is read too slowly")
            self._reservation.reserve(self._held_bytes)
        except ServerError as error:
            self.failed(error)
            if self._protocol is not None and self._protocol.transport is not None:
                self._protocol.transport.abort()

    def _write(self, transport: asyncio.Transport, data: bytes) -> None:
        """``data`` as one HTTP/1.1 chunk (HTTP/1.0 clients read to the end of the connection).

        Straight to the transport this costs a third of ``StreamResponse.write``.
        """
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _object(self, said: AnswerContent) -> bytes:
        """One run, of one kind."""
        if said.calls:
            return self._lines.calls(said.calls)
        if said.thinking:
            return self._lines.thought(said.thinking)
        return self._line(said.content)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(part: Thought | ToolCall) -> int:
    """About the bytes that its text takes."""
    if isinstance(part, Thought):
        return getsizeof(part.text)
    return len(msgspec.json.encode(part))
