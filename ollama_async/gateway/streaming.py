"""Runs the jobs of a request and sends their answers, whatever the protocol. Every way to end early
is handled here, once.

- ``CancelledError``: the client disconnected (aiohttp cancels the handler), or the server shuts
  down. The jobs are cancelled at once, in whatever phase they are, and the error is raised again.
- ``TimeoutError``: the client reads nothing for too long. It becomes a ``ConnectionResetError``,
  on which the middleware aborts the connection.
- ``ConnectionError``: a write found the connection closed before the cancellation came.
- ``ServerError``: before the first byte, the middleware makes an HTTP status of it; later, one
  error object ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

import msgspec
from aiohttp import web

from ollama_async.core.errors import ServerError
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.client_budgets import FREE_BYTES, SEND_RESERVATION
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.response_formats import (
    SSE_TYPE,
    AnswerContent,
    FinalAnswer,
    ResponseFormat,
)
from ollama_async.gateway.response_stream import ResponseStream
from ollama_async.gateway.responses import json_response, write_slices
from ollama_async.queue.backend import Handle, Job

T = TypeVar("T")

STALL_S = 60.0
"""A client that reads nothing for so long is treated as disconnected."""

OFF_LOOP_BYTES = 512 << 10
"""Of memory. What is longer is encoded in a thread: nine thousand tokens take 3 ms, and a thousand
with logprobs up to 10 ms."""

OFF_LOOP_TOKENS = 2_000
"""So is the end of a longer stream: in some protocols it repeats the answer, several times."""


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job for each choice, how to send their answers, and when the request arrived
    (perf_counter()).
    """

    jobs: Sequence[Job]
    response_format: ResponseFormat
    is_streamed: bool
    began_at: float


async def send_answer(
    request: web.Request, params: StreamRequest, *, stall_s: float = STALL_S
) -> web.StreamResponse:
    """Run the jobs and send their answers. Cancelling this cancels the jobs.

    :raises ServerError: a job was refused or failed, and nothing has been sent.
    :raises ConnectionResetError: the client is gone, or reads nothing for ``stall_s``.
    """
    dependencies = request.app[DEPENDENCIES]
    metrics = dependencies.metrics
    stream = ResponseStream(
        params.response_format,
        metrics.inter_token.observe,
        dependencies.flusher,
        request[SEND_RESERVATION],
        is_streamed=params.is_streamed,
        choices=len(params.jobs),
    )
    handles: list[Handle] = []
    try:
        for choice, job in enumerate(params.jobs):
            handles.append(dependencies.backend.submit(job, stream.sink(choice)))
        if not params.is_streamed:
            return await _answer_whole(params, stream)
        return await _answer_streamed(request, params, stream, stall_s)
    except TimeoutError:
        metrics.cancelled(stream.phase)
        raise ConnectionResetError from None
    except (asyncio.CancelledError, ConnectionError):
        metrics.cancelled(stream.phase)
        raise
    finally:
        for handle in handles:
            handle.cancel()
        if handles:
            metrics.answered(params.jobs[0].target.name, params.began_at, stream)


async def _answer_streamed(
    request: web.Request, params: StreamRequest, stream: ResponseStream, stall_s: float
) -> web.StreamResponse:
    while not stream.has_deltas and not stream.has_ended:
        await stream.wait()
    if stream.error is not None and not stream.has_deltas:
        raise stream.error
    stream.is_sealed = True
    content_type = params.response_format.content_type
    response = _LazyResponse(headers={"Content-Type": content_type})
    if content_type == SSE_TYPE:
        response.headers["Cache-Control"] = "no-cache"
    await response.prepare(request)
    async with asyncio.timeout(stall_s):
        if objects := stream.take_objects():
            await response.write(objects)
    while not stream.has_ended:
        async with asyncio.timeout(stall_s):
            await request.writer.drain()
        if stream.buffered_bytes <= OFF_LOOP_BYTES:
            stream.attach(request)
            await stream.wait()
        else:
            await _write_long(request, response, await stream.take_objects_off_loop())
    last = await _run(_last_bytes, params, stream, is_long=_has_long_end(stream))
    if len(last) > FREE_BYTES:
        await _write_long(request, response, last)
        last = b""
    async with asyncio.timeout(stall_s):
        await response.write_eof(last)
    return response


async def _write_long(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """:raises ConnectionResetError: the client is gone, reads too slowly, or holds too much."""
    try:
        request[SEND_RESERVATION].reserve(len(data))
    except ServerError:
        raise ConnectionResetError from None
    await write_slices(response, data)


def _has_long_end(stream: ResponseStream) -> bool:
    tokens = sum(finish.usage.answer for finish in stream.finishes.values())
    return tokens > OFF_LOOP_TOKENS or stream.buffered_bytes > OFF_LOOP_BYTES


async def _run(
    write: Callable[[StreamRequest, ResponseStream], T],
    params: StreamRequest,
    stream: ResponseStream,
    *,
    is_long: bool,
) -> T:
    """What ``write`` makes of an answer that has ended, in a thread if that ``is_long``."""
    return await run_in_thread(write, params, stream) if is_long else write(params, stream)


class _LazyResponse(web.StreamResponse):
    """Sends its headers with the first text, in one packet. (If aiohttp drops this switch, they get
    a packet of their own.)
    """

    _send_headers_immediately = False


async def _answer_whole(params: StreamRequest, stream: ResponseStream) -> web.Response:
    while not stream.has_ended:
        await stream.wait()
    if stream.error is not None:
        raise stream.error
    is_long = stream.buffered_bytes > OFF_LOOP_BYTES
    return await _run(_whole_response, params, stream, is_long=is_long)


def _whole_response(params: StreamRequest, stream: ResponseStream) -> web.Response:
    answers = _final_answers(params, stream, stream.take)
    body = params.response_format.whole(answers)
    return json_response(body, headers={"Content-Type": params.response_format.whole_type})


def _last_bytes(params: StreamRequest, stream: ResponseStream) -> bytes:
    """What was buffered for a slow client, then the last object or the error."""
    rest = stream.take_objects()
    if stream.error is not None:
        return rest + params.response_format.error(stream.error)
    answers = _final_answers(params, stream, lambda _choice: AnswerContent())
    return rest + params.response_format.last(answers)


def _final_answers(
    params: StreamRequest, stream: ResponseStream, content: Callable[[int], AnswerContent]
) -> list[FinalAnswer]:
    total_ns = int((perf_counter() - params.began_at) * 1e9)
    return [
        FinalAnswer(finish=finish)
        if finish.reason == "load"
        else FinalAnswer(
            finish=finish,
            content=content(choice),
            has_calls=stream.has_calls(choice),
            load_ns=stream.start.load_ns,
            total_ns=total_ns,
        )
        for choice, finish in sorted(stream.finishes.items())
    ]
