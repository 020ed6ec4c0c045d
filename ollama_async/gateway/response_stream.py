"""Sends the deltas of one request to its client, with backpressure.

A :class:`ResponseStream` is the :class:`~ollama_async.queue.backend.Sink` of one job::

    buffering ──attach()──▶ flowing ──client slow──▶ buffering ──attach()──▶ flowing … ──▶ ended
      deltas are kept         each delta becomes       deltas are kept, and
      in memory               one object at once       joined to one object

Flowing needs no task switch. At the end of the loop's turn a :class:`Flusher` writes the objects of
all streams that received a delta. Above the transport's high-water mark the client is slow: the
stream buffers and wakes the handler, which drains the socket with a deadline and attaches again. So
a client that keeps up gets one object per delta, and nothing is dropped. Buffered bytes are counted
(:class:`~ollama_async.gateway.client_budgets.Reservation`); an answer that buffers too much fails.

A request may have several choices: answers to the same prompt, or to several. Each is a job with a
:meth:`ResponseStream.sink` of its own. The client learns at once when one of them ends. The
response ends with the last of them, or with the first that fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from sys import getsizeof
from time import perf_counter
from typing import cast

import msgspec
from aiohttp import web

from ollama_async.core.conversation import Logprobs, Part, Thought, ToolCall
from ollama_async.core.errors import BadRequest, Busy, ServerError
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.client_budgets import FREE_BYTES, Reservation
from ollama_async.gateway.response_formats import (
    AnswerContent,
    Delta,
    FinalAnswer,
    ResponseFormat,
    content_of,
    write_deltas,
)
from ollama_async.queue.backend import Finish, Sink, Start

JOIN_ABOVE = 8
"""With more deltas than this in one turn, the loop is behind the producer. They are joined to one
object, which divides bytes and work per token by ten."""

UNREAD_LIMIT_BYTES = 16 << 20
"""Of a streamed answer whose client reads slowly: about two hundred thousand tokens in memory."""


_log = logging.getLogger(__name__)


class Flusher:
    """Flushes every stream that received a delta in this turn of the loop, in one callback.

    A callback for each would cost as much as writing its object.
    """

    def __init__(self) -> None:
        self._due: list[ResponseStream] = []

    def add(self, stream: ResponseStream) -> None:
        if not self._due:
            asyncio.get_running_loop().call_soon(self._run)
        self._due.append(stream)

    def _run(self) -> None:
        due, self._due = self._due, []
        for stream in due:
            try:
                stream.flush()
            except Exception:  # noqa: BLE001  # a bug must cost one request only
                _log.exception("cannot write an answer")
                stream.abort(ServerError("internal error"))


_LOGPROB_BYTES = 400
"""About what a token and its logarithm take in memory, with their JSON."""


class ResponseStream:
    """The answers to one request. All methods run on the event loop; none blocks.

    ``observe_gap`` gets the seconds between two deltas. ``reservation`` counts buffered bytes; its
    owner releases it. If not ``is_streamed``, all is buffered until the end, for :meth:`take`. An
    answer that ``is_sealed`` cannot restart: bytes have been or will be sent. ``finishes`` has the
    end of each choice that has ended.
    """

    def __init__(
        self,
        response_format: ResponseFormat,
        observe_gap: Callable[[float], None],
        flusher: Flusher,
        reservation: Reservation,
        *,
        is_streamed: bool,
        choices: int = 1,
    ) -> None:
        self.finishes: dict[int, Finish] = {}
        self.error: ServerError | None = None
        self.start = Start()
        self.started_at: float | None = None
        self.first_at: float | None = None
        self._last_at = 0.0
        self._formats = [
            response_format,
            *(response_format.choice(index) for index in range(1, choices)),
        ]
        self._observe_gap = observe_gap
        self._flusher = flusher
        self._reservation = reservation
        self._is_streamed = is_streamed
        self._is_due = not is_streamed
        self.is_sealed = False
        self._deltas: list[list[Delta]] = [[] for _ in range(choices)]
        self._ended: dict[int, FinalAnswer] = {}  # by choice; not written yet
        self._has_begun = False
        self._is_plain = choices == 1  # all deltas so far are text
        self._calls = [False] * choices
        self.buffered_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._protocol: web.RequestHandler | None = None
        self._is_chunked = True

    # -- called by the backend (Sink) ------------------------------------------------------------

    def sink(self, choice: int) -> Sink:
        """Where the answer of this choice goes; of choice 0, the stream itself."""
        return _ChoiceSink(self, choice) if choice else self

    def started(self, start: Start) -> None:
        if self.started_at is None:
            self.start = start
            self.started_at = perf_counter()

    def part(self, part: Part, choice: int = 0) -> None:
        self._is_plain = False
        self.buffered_bytes += _size_of(part)
        if isinstance(part, ToolCall):
            self._calls[choice] = True
        self.text(part, choice)

    def text(self, text: Delta, choice: int = 0) -> None:
        if self.error is not None:  # the backend does not know yet
            return
        if self._is_plain or self._is_next_token(choice):
            now = perf_counter()
            if self._last_at:
                self._observe_gap(now - self._last_at)
            else:
                self.first_at = now
            self._last_at = now
        self._deltas[choice].append(text)
        self.buffered_bytes += getsizeof(text)
        if self.buffered_bytes > FREE_BYTES:
            self._reserve()
        if self._is_due:
            return
        self._is_due = True
        if self._transport is None:
            self._wake()
        else:
            self._flusher.add(self)

    def finished(self, finish: Finish, choice: int = 0) -> None:
        if self.error is None:
            self.finishes[choice] = finish
            self._ended[choice] = FinalAnswer(finish=finish, has_calls=self._calls[choice])
        self._wake()

    def failed(self, error: ServerError) -> None:
        self.error = self.error or error
        self._wake()

    def try_restart(self, choice: int = 0) -> bool:
        if self.is_sealed:
            return False
        self._deltas[choice].clear()
        self._calls[choice] = False
        if not any(self._deltas):
            self.buffered_bytes = 0
            self._is_plain = len(self._formats) == 1
            self._is_due = not self._is_streamed
            self.start = Start()
            self.started_at = self.first_at = None
            self._last_at = 0.0
        return True

    # -- called by the handler -------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return len(self.finishes) == len(self._formats) or self.error is not None

    @property
    def has_deltas(self) -> bool:
        return any(self._deltas)

    def has_calls(self, choice: int) -> bool:
        """Whether there were tool calls in the answer."""
        return self._calls[choice]

    @property
    def phase(self) -> str:
        """``queue`` (no slot yet), ``prefill`` (no text yet) or ``decode``."""
        if self.started_at is None:
            return "queue"
        return "decode" if self.first_at is not None else "prefill"

    def take(self, choice: int = 0) -> AnswerContent:
        """Take what is not written yet of one answer."""
        deltas, self._deltas[choice] = self._deltas[choice], []
        return content_of(deltas)

    def take_objects(self) -> bytes:
        """Take what is not written yet, encoded, with neighbours of one kind joined to one object.
        What begins the response comes first.
        """
        return self._write_objects(*self._take_deltas())

    async def take_objects_off_loop(self) -> bytes:
        """As :meth:`take_objects`, in a thread. Meanwhile deltas are kept."""
        self._transport = None
        return await run_in_thread(self._write_objects, *self._take_deltas())

    async def wait(self) -> None:
        """Wait for the end, the first delta, or a slow client. May be cancelled at any time.

        It has no deadline of its own: the backend ends every job (by its load, stall and shutdown
        limits), and a client that disconnects cancels the handler.
        """
        if self.has_ended or (self._transport is None and self._is_streamed and self.has_deltas):
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def attach(self, request: web.Request) -> None:
        """Let deltas flow to the client, after what was buffered.

        The response's headers must have been sent, and the socket drained.

        :raises ConnectionResetError: the client is gone.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._transport, self._protocol = transport, request.protocol
        self._is_chunked = request.version.minor > 0
        self._is_due = False
        if self.has_deltas or self._ended:
            data = self.take_objects()
            self.buffered_bytes = len(data)
            self._write(transport, data)

    # -- called by the flusher -------------------------------------------------------------------

    def flush(self) -> None:
        """Write this turn's deltas; or buffer them, if the client is slow or gone."""
        transport, protocol = self._transport, self._protocol
        if transport is None or protocol is None or not self.has_deltas:
            return
        if protocol.writing_paused or transport.is_closing():
            self._transport = None  # buffer; ``_is_due`` stays true: no further flush is scheduled
            self._wake()
            return
        self._is_due = False
        if not self._is_plain:
            self._write(transport, self.take_objects())
            return
        self.buffered_bytes = 0
        texts, self._deltas[0] = cast("list[str]", self._deltas[0]), []
        text = self._formats[0].text
        if len(texts) == 1:
            data = text(texts[0])
        elif len(texts) > JOIN_ABOVE:
            data = text("".join(texts))
        else:
            data = b"".join(map(text, texts))
        self._write(transport, data)

    def abort(self, error: ServerError) -> None:
        """Fail. A client that has a part of the answer is disconnected: it would read an error too
        late, or not at all.
        """
        self.failed(error)
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abort()

    # -- private ---------------------------------------------------------------------------------

    def _take_deltas(self) -> tuple[bool, list[list[Delta]], dict[int, FinalAnswer]]:
        """Whether the response begins with them, those of each choice, and the choices that end."""
        is_first, self._has_begun = not self._has_begun, True
        self.buffered_bytes = 0
        deltas, self._deltas = self._deltas, [[] for _ in self._formats]
        ended, self._ended = self._ended, {}
        return is_first, deltas, ended

    def _write_objects(
        self, is_first: bool, deltas: list[list[Delta]], ended: dict[int, FinalAnswer]
    ) -> bytes:
        data = [self._formats[0].begin(self.start)] if is_first else []
        for choice, response_format in enumerate(self._formats):
            if deltas[choice]:
                data += write_deltas(response_format, deltas[choice])
            if choice in ended:
                data.append(response_format.ended(ended[choice]))
        return b"".join(data)

    def _is_next_token(self, choice: int) -> bool:
        """Whether a delta is timed: of several choices the first is, and text that comes after its
        logprobs is not another token.
        """
        deltas = self._deltas[choice]
        return choice == 0 and not (deltas and isinstance(deltas[-1], Logprobs))

    def _reserve(self) -> None:
        """Reserve the buffered bytes; if they are too many, the answer fails."""
        if self._is_streamed and self.buffered_bytes > UNREAD_LIMIT_BYTES:
            self.abort(Busy("the answer is read too slowly"))
            return
        try:
            self._reservation.reserve(self.buffered_bytes)
        except Busy as error:
            self.abort(error)
        except ServerError as error:  # this answer alone is too large: nothing is wrong here
            self.abort(BadRequest(f"{error.message}: stream it, or ask for less"))

    def _write(self, transport: asyncio.Transport, data: bytes) -> None:
        """``data`` as one HTTP/1.1 chunk (an HTTP/1.0 client reads to the end of the connection).

        Writing to the transport costs a third of ``StreamResponse.write``.
        """
        if data:  # an empty chunk would be the last one
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _ChoiceSink:
    """The sink of one of several choices."""

    def __init__(self, stream: ResponseStream, choice: int) -> None:
        self.started = stream.started
        self.text = partial(stream.text, choice=choice)
        self.part = partial(stream.part, choice=choice)
        self.finished = partial(stream.finished, choice=choice)
        self.failed = stream.failed
        self.try_restart = partial(stream.try_restart, choice=choice)


def _size_of(part: Part) -> int:
    """Bytes of memory, roughly."""
    if isinstance(part, Thought):
        return getsizeof(part.text)
    if isinstance(part, Logprobs):
        return _LOGPROB_BYTES * sum(1 + len(token.top) for token in part.tokens)
    return len(msgspec.json.encode(part))
