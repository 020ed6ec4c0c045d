from __future__ import annotations

import asyncio
import json
import socket
import threading
from time import perf_counter

import pytest

from ollama_async.core.conversation import Thought
from ollama_async.core.errors import WorkerDied
from ollama_async.gateway import response_stream, streaming
from ollama_async.gateway.client_budgets import SEND_RESERVATION, Reservation, SendBudget
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.response_formats import FinalAnswer, write_deltas
from ollama_async.gateway.response_formats.ollama import OllamaGenerateFormat
from ollama_async.gateway.streaming import StreamRequest, send_answer
from tests.unit.gateway.conftest import FakeRequest, make_job

DEADLINE_S = 10.0


@pytest.fixture
async def raw(stream_url):
    """Opens connections that send one request and read only when told."""
    writers = []

    async def connect(query: str = "", *, receive_buffer: int | None = None):
        host, port = stream_url.removeprefix("http://").split(":")
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        writers.append(writer)
        writer.write(f"POST /?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()


def objects(body: bytes | str) -> list[dict]:
    return [json.loads(line) for line in body.splitlines()]


async def test_a_client_that_keeps_up_gets_one_object_per_delta(session, stream_url, backend):
    async with asyncio.TaskGroup() as group:
        request = group.create_task(session.post(stream_url))
        job = (await backend.job()).start().send("a")
        response = await request
        lines = [json.loads(await response.content.readline())]
        for piece in ("b", "ü", '"\n'):
            job.send(piece)
            lines.append(json.loads(await response.content.readline()))
        job.end(context=[1, 2])
        lines.append(json.loads(await response.content.readline()))
        rest = await response.read()

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [line["response"] for line in lines] == ["a", "b", "ü", '"\n', ""]
    assert [line["done"] for line in lines] == [False, False, False, False, True]
    assert rest == b""
    last = lines[-1]
    assert last.pop("total_duration") > 0
    assert last.pop("created_at").endswith("Z")
    assert list(last.items()) == [
        ("model", "m"),
        ("response", ""),
        ("done", True),
        ("done_reason", "stop"),
        ("context", [1, 2]),
        ("load_duration", 5_000_000),
        ("prompt_eval_count", 7),
        ("prompt_eval_duration", 1_000),
        ("eval_count", 2),
        ("eval_duration", 2_000),
    ]


async def test_without_streaming_the_answer_is_one_object(session, stream_url, backend):
    backend.script = lambda job: job.start().send("Hel", "lo").end()

    async with session.post(stream_url + "?stream=0") as response:
        body = await response.read()

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body)["response"] == "Hello"


async def test_many_deltas_at_once_become_one_object(session, stream_url, backend):
    backend.script = lambda job: job.start().send(*"abcdefghijklmnopqrstuvwxyz").end()

    async with session.post(stream_url) as response:
        lines = objects(await response.read())

    assert [line["response"] for line in lines] == ["abcdefghijklmnopqrstuvwxyz", ""]


async def test_an_answer_without_text_is_its_last_object(session, stream_url, backend):
    backend.script = lambda job: job.start().end("length")

    async with session.post(stream_url) as response:
        lines = objects(await response.read())

    assert [(line["response"], line["done_reason"]) for line in lines] == [("", "length")]


async def test_an_error_after_text_is_one_line_and_the_end(session, stream_url, backend):
    async with asyncio.TaskGroup() as group:
        request = group.create_task(session.post(stream_url))
        job = (await backend.job()).start().send("a")
        response = await request
        first = json.loads(await response.content.readline())
        job.fail(WorkerDied("the worker died"))
        rest = await response.read()

    assert first["response"] == "a"
    assert objects(rest) == [{"error": "the worker died"}]


async def test_an_answer_may_restart_until_a_byte_is_sent(session, stream_url, backend):
    async with asyncio.TaskGroup() as group:
        request = group.create_task(session.post(stream_url))
        job = (await backend.job()).start().send("void")
        assert job.restart()
        job.send("a")
        response = await request
        first = json.loads(await response.content.readline())
        assert not job.restart()
        job.end()
        await response.read()

    assert first["response"] == "a"


async def test_an_unstreamed_answer_may_always_restart(session, stream_url, backend):
    async with asyncio.TaskGroup() as group:
        request = group.create_task(session.post(stream_url + "?stream=0"))
        job = (await backend.job()).start().send("void", "void")
        assert job.restart()
        job.send("a").end()
        response = await request
        body = await response.json()

    assert body["response"] == "a"


@pytest.mark.slow
@pytest.mark.parametrize("query", ["stream=0", "stream=1"])
@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
async def test_a_disconnected_client_cancels_its_job(raw, backend, metrics, query, phase):
    reader, writer = await raw(query)
    job = await backend.job()
    if phase != "queue":
        job.start()
    if phase == "decode":
        job.send("a")
        if query == "stream=1":
            await reader.readuntil(b"\r\n\r\n")

    writer.close()

    async with asyncio.timeout(DEADLINE_S):
        await job.cancelled.wait()
    expected = f'ollama_requests_cancelled_total{{phase="{phase}"}} 1.0'
    assert expected in metrics.render(backend.snapshot()).decode()


@pytest.mark.slow
async def test_a_slow_client_gets_all_text_in_fewer_objects(raw, backend):
    reader, _ = await raw(receive_buffer=4096)
    job = (await backend.job()).start()
    pieces = [f"{n:07d}" + "x" * 1017 for n in range(12_000)]  # socket buffers hold a third
    for piece in pieces:
        job.send(piece)
        await asyncio.sleep(0)  # one turn of the loop: time to flush
    job.end()

    await reader.readuntil(b"\r\n\r\n")
    lines = objects(await _dechunked(reader))

    assert "".join(line["response"] for line in lines) == "".join(pieces)
    assert len(lines) < len(pieces)
    assert lines[-1]["done"] is True


@pytest.mark.slow
async def test_what_a_slow_client_did_not_read_is_encoded_in_threads(raw, backend, monkeypatch):
    threads: list[tuple[int, threading.Thread]] = []

    def write(response_format, deltas):
        threads.append((len(deltas), threading.current_thread()))
        return write_deltas(response_format, deltas)

    monkeypatch.setattr(response_stream, "write_deltas", write)
    monkeypatch.setattr(streaming, "OFF_LOOP_BYTES", 64 << 10)
    reader, _ = await raw(receive_buffer=4096)
    job = (await backend.job()).start().part(Thought("a"))
    pieces = [f"{n:07d}" + "x" * 1017 for n in range(6_000)]
    for piece in pieces:
        job.send(piece)
        await asyncio.sleep(0)
    await reader.readuntil(b"\r\n\r\n")
    rest = asyncio.create_task(_dechunked(reader))
    job.send("b").end()
    lines = objects(await rest)

    assert "".join(line["response"] for line in lines) == "".join(pieces) + "b"
    many = [thread for number, thread in threads if number > 100]
    assert many
    assert threading.main_thread() not in many


async def test_the_start_of_an_answer_that_restarted_is_the_second_one(
    session, stream_url, backend
):
    async with asyncio.TaskGroup() as group:
        request = group.create_task(session.post(stream_url))
        job = (await backend.job()).start(load_ns=1).send("void")
        assert job.restart()
        job.start(load_ns=2).send("a").end()
        lines = objects(await (await request).read())

    assert lines[-1]["load_duration"] == 2


async def test_a_client_that_never_reads_is_disconnected_and_its_job_cancelled(raw, backend):
    reader, _ = await raw("stall_s=0.05", receive_buffer=4096)
    job = (await backend.job()).start()
    async with asyncio.timeout(DEADLINE_S):
        while not job.cancelled.is_set():
            job.send("x" * 4096)
            await asyncio.sleep(0)

    rest = await reader.read(-1)
    assert not rest.endswith(b"0\r\n\r\n")


async def test_an_http_1_0_client_gets_lines_without_chunks(stream_url, backend):
    host, port = stream_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    job = (await backend.job()).start().send("a")
    head = await reader.readuntil(b"\r\n\r\n")
    first = await reader.readline()
    job.send("b").end()
    rest = await reader.read()
    writer.close()

    assert b"chunked" not in head
    assert [line["response"] for line in objects(first + rest)] == ["a", "b", ""]


async def _dechunked(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    return b"".join(chunks)


async def test_an_answer_encoded_in_a_thread_is_reserved_until_the_thread_ends(
    backend, dependencies, monkeypatch
):
    """Until then its memory is in use, so its reservation must not be given back."""
    loop, begun, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class SlowFormat(OllamaGenerateFormat):
        def whole(self, answer: FinalAnswer) -> bytes:
            loop.call_soon_threadsafe(begun.set)
            assert may_end.wait(DEADLINE_S)
            return super().whole(answer)

    monkeypatch.setattr(streaming, "OFF_LOOP_BYTES", 0)
    request = FakeRequest()
    request.app = {DEPENDENCIES: dependencies}
    request[SEND_RESERVATION] = Reservation(SendBudget(), request)
    params = StreamRequest(
        jobs=[make_job()],
        response_format=SlowFormat("m"),
        is_streamed=False,
        began_at=perf_counter(),
    )
    answering = asyncio.create_task(send_answer(request, params))
    (await backend.job()).start().send("a").end()
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()

    answering.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    was_held = not answering.done()
    may_end.set()

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait({answering})
    assert was_held
    assert answering.cancelled()
