"""Runs a job and sends its answer. Every way in which that can end early is handled here, once.

The ladder of :meth:`AnswerStreamer.answer`:

==========================  =======================================================================
``CancelledError``          The client closed its connection (aiohttp cancels the handler), or the
                            server shuts down. The job is cancelled at once, whether it is queued,
                            in prefill or in decode, and the error raised again: whoever cancelled
                            the handler waits for it.
``TimeoutError``            The client keeps the connection but reads nothing, and its text must not
                            stay in memory. Becomes a ``ConnectionResetError``: the middleware
                            aborts the connection.
``ConnectionError``         A write found the connection closed before the cancellation came.
``ServerError``, no byte    Raised as it is: the middleware makes an HTTP status of it.
``ServerError``, bytes out  The status is out; one error object ends the stream.
``finally``                 The job is cancelled on every way out; after its end that does nothing.
==========================  =======================================================================
"""

from __future__ import annotations

import asyncio
from time import perf_counter

import msgspec
from aiohttp import web

from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.client_budgets import SEND_RESERVATION
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.response_formats import AnswerContent, FinalAnswer, ResponseFormat
from ollama_async.gateway.response_stream import Flusher, ResponseStream
from ollama_async.gateway.responses import json_response
from ollama_async.queue.backend import Finish, InferenceBackend, Job

OFF_LOOP_BYTES = 4 << 20
"""Larger answers are encoded in a thread: fifty thousand tokens take 10 ms."""


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job, how to answer it, and when its request arrived (perf_counter())."""

    job: Job
    response_format: ResponseFormat
    is_streamed: bool
    began_at: float


class AnswerStreamer:
    """Answers the requests of one server that a model serves.

    ``stall_s`` is how long a client may leave a full socket unread before it is disconnected.
    """

    def __init__(
        self, backend: InferenceBackend, metrics: Metrics, *, stall_s: float = 60.0
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._stall_s = stall_s
        self._flusher = Flusher()

    async def answer(self, request: web.Request, params: StreamRequest) -> web.StreamResponse:
        """Run the job and send its answer; may be cancelled at any time, which cancels the job.

        :raises ServerError: the job was refused or failed, and nothing has been sent.
        :raises ConnectionResetError: the client is gone, or reads too slowly.
        """
        metrics = self._metrics
        stream = ResponseStream(
            params.response_format,
            metrics.inter_token.observe,
            self._flusher,
            request[SEND_RESERVATION],
            is_streamed=params.is_streamed,
        )
        handle = self._backend.submit(params.job, stream)
        try:
            if not params.is_streamed:
                return await _answer_whole(params, stream)
            return await self._answer_streamed(request, params, stream)
        except TimeoutError:
            metrics.cancelled(stream.phase)
            raise ConnectionResetError from None
        except (asyncio.CancelledError, ConnectionError):
            metrics.cancelled(stream.phase)
            raise
        finally:
            handle.cancel()
            metrics.answered(params.job.target.name, params.began_at, stream)

    async def _answer_streamed(
        self, request: web.Request, params: StreamRequest, stream: ResponseStream
    ) -> web.StreamResponse:
        while not stream.has_deltas and not stream.has_ended:
            await stream.wait()
        if stream.error is not None and not stream.has_deltas:
            raise stream.error
        stream.seal()
        response = _LazyResponse(headers={"Content-Type": params.response_format.content_type})
        await response.prepare(request)
        async with asyncio.timeout(self._stall_s):
            if objects := stream.take_objects():
                await response.write(objects)
        while not stream.has_ended:
            async with asyncio.timeout(self._stall_s):
                await request.writer.drain()
            stream.attach(request)
            await stream.wait()
        async with asyncio.timeout(self._stall_s):
            await response.write_eof(_last_bytes(params, stream))
        return response


class _LazyResponse(web.StreamResponse):
    """Its headers wait for the first text and leave in the same packet. (Should aiohttp ever drop
    this switch, they leave in a packet of their own.)
    """

    _send_headers_immediately = False


async def _answer_whole(params: StreamRequest, stream: ResponseStream) -> web.Response:
    while not stream.has_ended:
        await stream.wait()
    if stream.finish is None:
        assert stream.error is not None
        raise stream.error
    if stream.buffered_bytes <= OFF_LOOP_BYTES:
        return _whole_response(params, stream, stream.finish)
    return await run_in_thread(_whole_response, params, stream, stream.finish)


def _whole_response(params: StreamRequest, stream: ResponseStream, finish: Finish) -> web.Response:
    answer = _final_answer(params, stream, finish, stream.take())
    return json_response(params.response_format.whole(answer))


def _last_bytes(params: StreamRequest, stream: ResponseStream) -> bytes:
    """What was buffered for a slow client, then the last object or the error."""
    rest = stream.take_objects()
    if stream.finish is None:
        assert stream.error is not None
        return rest + params.response_format.error(stream.error)
    answer = _final_answer(params, stream, stream.finish, AnswerContent())
    return rest + params.response_format.last(answer)


def _final_answer(
    params: StreamRequest, stream: ResponseStream, finish: Finish, content: AnswerContent
) -> FinalAnswer:
    if finish.reason == "load":
        return FinalAnswer.without_content("load")
    total_ns = int((perf_counter() - params.began_at) * 1e9)
    return FinalAnswer(finish=finish, content=content, load_ns=stream.load_ns, total_ns=total_ns)
