"""The one streaming loop: a job is submitted, its answer goes to the client, and every way in
which that can end early is handled here, in one ladder.

The ladder of :meth:`AnswerStreamer.answer`, top rung first; each rung says what happens and why:

==========================  =======================================================================
``CancelledError``          The client closed its connection (aiohttp cancels the handler) or the
                            server gives up on it in its shutdown. Cancel the job at once, be it
                            queued, in its prompt or in its answer, and raise again: who cancels
                            us waits for it.
``TimeoutError``            The client keeps the connection and reads nothing; its text must not
                            stay for ever. Becomes a ``ConnectionResetError``: the boundary cuts.
``ConnectionError``         A write found the connection closed before the cancellation came.
                            As the first rung; the boundary keeps it out of the log.
``ServerError``, no byte    Raised as it is: the error middleware makes an HTTP status of it.
``ServerError``, bytes out  The status is spoken; one ``{"error": …}`` line ends the stream.
``finally``                 The job is cancelled on every way out; after its end that does nothing.
==========================  =======================================================================
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Protocol

import msgspec
from aiohttp import web

from ollama_async.core.conversation import Usage
from ollama_async.core.errors import ServerError
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.response_formats import AnswerContent
from ollama_async.gateway.response_stream import Flusher, Lines, ResponseStream
from ollama_async.gateway.responses import JSON_TYPE
from ollama_async.gateway.send_budget import RESERVATION
from ollama_async.queue.backend import Finish, InferenceBackend, Job

OFF_LOOP_BYTES = 4 << 20
"""Answers that hold more are put together in a thread: fifty thousand tokens take 10 ms."""


class FinalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the last object of an answer says. Durations in nanoseconds.

    ``said`` is the whole answer without streaming, and nothing with it. A zero is not said.
    """

    finish: Finish
    said: AnswerContent = AnswerContent()
    load_ns: int = 0
    total_ns: int = 0

    @classmethod
    def without_answer(cls, reason: str) -> FinalAnswer:
        """Nothing was generated: ``load`` or ``unload``."""
        return cls(finish=Finish(reason, Usage(), []))


class ResponseFormat(Lines, Protocol):
    """How one protocol answers. What ``Lines`` has, ``last`` and ``error`` are objects of a stream
    with their separators; ``whole`` is the one JSON object without streaming.
    """

    content_type: str

    def last(self, ending: FinalAnswer) -> bytes: ...

    def error(self, error: ServerError) -> bytes: ...

    def whole(self, ending: FinalAnswer) -> bytes: ...


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, ready to run. ``model`` labels its numbers; ``began_at`` is perf_counter()."""

    job: Job
    voice: ResponseFormat
    model: str
    is_streamed: bool
    began_at: float


class AnswerStreamer:
    """Runs every request of one server that a model answers.

    ``stall_s`` is how long a client may leave a full socket unread before it is cut.
    """

    def __init__(
        self, backend: InferenceBackend, metrics: Metrics, *, stall_s: float = 60.0
    ) -> None:
        self._inferring = backend
        self._metrics = metrics
        self._stall_s = stall_s
        self._flusher = Flusher()

    async def answer(self, request: web.Request, ask: StreamRequest) -> web.StreamResponse:
        """Run ``ask`` and send its answer; may be cancelled at any time, which cancels the job.

        :raises ServerError: the job was refused or failed, and nothing has been sent.
        :raises ConnectionResetError: the client is gone, or was cut.
        """
        metrics = self._metrics
        outbox = ResponseStream(
            ask.voice,
            metrics.inter_token,
            self._flusher,
            request[RESERVATION],
            is_streamed=ask.is_streamed,
        )
        handle = self._inferring.submit(ask.job, outbox)
        try:
            if not ask.is_streamed:
                return await _whole(ask, outbox)
            return await _streamed(request, ask, outbox, self._stall_s)
        except asyncio.CancelledError:
            metrics.cancelled(outbox.phase)
            raise
        except TimeoutError:
            metrics.cancelled(outbox.phase)
            raise ConnectionResetError from None
        except ConnectionError:
            metrics.cancelled(outbox.phase)
            raise
        finally:
            handle.cancel()
            metrics.answered(ask.model, ask.began_at, outbox)


async def _whole(ask: StreamRequest, outbox: ResponseStream) -> web.Response:
    while not outbox.has_ended:
        await outbox.wake()
    if outbox.finish is None:
        assert outbox.error is not None
        raise outbox.error
    if outbox.held_bytes <= OFF_LOOP_BYTES:
        return _said_whole(ask, outbox, outbox.finish)
    return await run_in_thread(_said_whole, ask, outbox, outbox.finish)


def _said_whole(ask: StreamRequest, outbox: ResponseStream, finish: Finish) -> web.Response:
    return whole_response(ask.voice, _ending(ask, outbox, finish, outbox.take()))


def whole_response(voice: ResponseFormat, ending: FinalAnswer) -> web.Response:
    """The answer as one JSON object."""
    return web.Response(body=voice.whole(ending), headers={"Content-Type": JSON_TYPE})


async def _streamed(
    request: web.Request, ask: StreamRequest, outbox: ResponseStream, stall_s: float
) -> web.StreamResponse:
    while not outbox.has_text and not outbox.has_ended:
        await outbox.wake()
    if outbox.error is not None and not outbox.has_text:
        raise outbox.error
    outbox.seal()
    response = _Stream(headers={"Content-Type": ask.voice.content_type})
    await response.prepare(request)
    async with asyncio.timeout(stall_s):
        if lines := outbox.take_lines():
            await response.write(lines)
    while not outbox.has_ended:
        async with asyncio.timeout(stall_s):
            await request.writer.drain()
        outbox.attach(request)
        await outbox.wake()
    async with asyncio.timeout(stall_s):
        await response.write_eof(_tail(ask, outbox))
    return response


class _Stream(web.StreamResponse):
    """Headers wait for the first text and leave in its packet. (Should aiohttp ever drop this
    switch, they leave in one of their own.)
    """

    _send_headers_immediately = False


def _tail(ask: StreamRequest, outbox: ResponseStream) -> bytes:
    """What is left to say: text that waited for the client, then the last object or the error."""
    rest = outbox.take_lines()
    if outbox.finish is None:
        assert outbox.error is not None
        return rest + ask.voice.error(outbox.error)
    return rest + ask.voice.last(_ending(ask, outbox, outbox.finish, AnswerContent()))


def _ending(
    ask: StreamRequest, outbox: ResponseStream, finish: Finish, said: AnswerContent
) -> FinalAnswer:
    if finish.reason == "load":
        return FinalAnswer.without_answer("load")
    total_ns = int((perf_counter() - ask.began_at) * 1e9)
    return FinalAnswer(finish=finish, said=said, load_ns=outbox.load_ns, total_ns=total_ns)
