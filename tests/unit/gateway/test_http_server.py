"""What a client sees on the wire: the end of streams, large heads, and bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_async.core.errors import EngineFailed
from ollama_async.gateway import http_server
from ollama_async.gateway.http_parser import (
    FIELDS_LIMIT,
    HEAD_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
)
from ollama_async.gateway.routes import build_application

DEADLINE_S = 10.0
HOST = "Host: localhost\r\n"
SHOW = f"POST /api/show HTTP/1.1\r\n{HOST}"
CHUNKED = f"{SHOW}Transfer-Encoding: chunked\r\n\r\n"

SendBytes = Callable[..., Awaitable[bytes]]


@pytest.fixture
def ask(connect) -> SendBytes:
    """Sends bytes, in pieces if there are more, and reads until the server closes."""

    async def ask(*pieces: str | bytes) -> bytes:
        reader, writer = await connect()
        async with asyncio.timeout(DEADLINE_S):
            for piece in pieces:
                writer.write(piece if isinstance(piece, bytes) else piece.encode())
                await writer.drain()
                await asyncio.sleep(0)
            return await reader.read()

    return ask


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and the rest of one answer."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status_line.split()[1]), headers, rest


def post(path: str, body: str, *, version: str = "1.1", headers: str = "") -> str:
    head = f"POST {path} HTTP/{version}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head + body


KEEP_ALIVE = ["", "Connection: keep-alive\r\n", "Connection: Keep-Alive, TE\r\n"]
GENERATE = json.dumps({"model": "m", "prompt": "x"})
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})
STREAMS = [
    ("/api/generate", GENERATE),
    ("/api/chat", CHAT),
    ("/api/push", '{"model":"nobody"}'),
    ("/api/pull", '{"model":"127.0.0.1:1/a/b"}'),
    ("/api/create", '{"model":"new","from":"127.0.0.1:1/a/b"}'),
]


@pytest.mark.parametrize("keep_alive", KEEP_ALIVE)
@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_a_client_of_http_1_0_sees_the_end_of_a_stream(ask, backend, path, body, keep_alive):
    backend.script = lambda job: job.start().send("one", "two").end()

    answer = await ask(post(path, body, version="1.0", headers=keep_alive))

    status, headers, rest = parted(answer)
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n"), status
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers.keys().isdisjoint({"Transfer-Encoding", "Content-Length", "Connection"})
    lines = [json.loads(line) for line in rest.splitlines()]
    assert lines[-1].get("done") or "error" in lines[-1]


async def test_an_error_ends_a_stream(ask, backend):
    backend.script = lambda job: job.start().send("one").fail(EngineFailed("no more"))

    answer = await ask(post("/api/chat", CHAT, version="1.0", headers=KEEP_ALIVE[1]))

    assert answer.endswith(b'{"error":"no more"}\n')


async def test_a_long_stream_is_not_cut(ask, backend):
    text = "x" * 1000
    backend.script = lambda job: job.start().send(*[text] * 500).end()

    answer = await ask(post("/api/generate", GENERATE, version="1.0"))

    lines = [json.loads(line) for line in parted(answer)[2].splitlines()]
    assert "".join(line["response"] for line in lines) == text * 500


@pytest.mark.parametrize(
    ("request_line", "body"),
    [("GET /api/tags", True), ("HEAD /api/tags", False), ("GET /nosuch", True)],
)
async def test_an_http_1_0_connection_stays_open_after_an_answer_with_a_length(
    connect, request_line, body
):
    reader, writer = await connect()
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            writer.write(f"{request_line} HTTP/1.0\r\n{KEEP_ALIVE[1]}\r\n".encode())
            _, headers, _ = parted(await reader.readuntil(b"\r\n\r\n"))
            assert headers["Connection"] == "keep-alive"
            if body:
                await reader.readexactly(int(headers["Content-Length"]))


async def test_connection_close_ends_the_connection_after_a_plain_answer(ask):
    status, headers, rest = parted(await ask("GET /api/version HTTP/1.0\r\n\r\n"))

    assert (status, int(headers["Content-Length"])) == (200, len(rest))
    assert "Connection" not in headers


def with_cookie(size: int) -> str:
    head = f"GET /api/version HTTP/1.1\r\n{HOST}Connection: close\r\nCookie: \r\n\r\n"
    return head.replace("Cookie: ", "Cookie: " + "c" * (size - len(head)))


@pytest.mark.parametrize("size", [9_000, 300_000, 1 << 20, HEAD_LIMIT_BYTES])
async def test_a_head_as_large_as_gos_limit_is_accepted(ask, size):
    assert parted(await ask(with_cookie(size)))[0] == 200


async def test_a_connection_may_have_several_large_heads_and_bodies(connect, backend):
    backend.script = lambda job: job.end("load")
    reader, writer = await connect()
    cookie = "Cookie: " + "c" * 900_000 + "\r\n"
    body = json.dumps({"model": "m", "stream": False, "prompt": "", "x": "y" * 900_000})
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):  # written before anything is read, so parts of several come at once
            writer.write(post("/api/generate", body, headers=HOST + cookie).encode())
        for _ in range(2):
            status, headers, _ = parted(await reader.readuntil(b"\r\n\r\n"))
            assert status == 200
            await reader.readexactly(int(headers["Content-Length"]))


async def test_many_fields_and_a_long_target_are_accepted(ask):
    fields = "".join(f"X-{number}: v\r\n" for number in range(FIELDS_LIMIT - 2))
    target = "/api/version?" + "q" * (TARGET_LIMIT_BYTES - 13)
    answer = await ask(f"GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n{fields}\r\n")

    assert parted(answer)[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        with_cookie(HEAD_LIMIT_BYTES + 100),
        with_cookie(2 << 20),
        f"GET / HTTP/1.1\r\n{HOST}X: " + "x" * (3 << 20),  # and no end
        f"GET / HTTP/1.1\r\n{HOST}" + ("X: " + "x" * 100_000 + "\r\n") * 11,
        f"GET / HTTP/1.1\r\n{HOST}" + "X: y\r\n" * (FIELDS_LIMIT + 1) + "\r\n",
        f"GET /{'x' * TARGET_LIMIT_BYTES} HTTP/1.1\r\n{HOST}\r\n",
    ],
    ids=["a bit", "much", "endless", "many long fields", "many fields", "target"],
)
async def test_a_larger_head_is_refused(ask, head):
    status, headers, body = parted(await ask(head))

    assert status == 431
    assert json.loads(body) == {"error": "request header fields too large"}
    assert headers["Connection"] == "close"


async def test_a_dripping_head_is_refused_early(connect):
    reader, writer = await connect()
    async with asyncio.timeout(DEADLINE_S):
        writer.write(f"GET / HTTP/1.1\r\n{HOST}X: ".encode())
        answer = asyncio.ensure_future(reader.read())
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0)
        assert parted(await answer)[0] == 431


@pytest.mark.parametrize(
    "sent",
    ["", "GET / HTTP/1.1\r\nHost: ", with_cookie(500_000)[:-4]],
    ids=["nothing", "little", "much"],
)
async def test_an_endless_head_closes_the_connection(serve, dependencies, monkeypatch, sent):
    monkeypatch.setattr(http_server, "KEEPALIVE_S", 0.05)
    url = await serve(build_application(dependencies))
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent.encode())
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


async def test_trailers_are_bounded(ask):
    head = CHUNKED + "2\r\n{}\r\n0\r\n"
    trailers = ["T: " + "x" * 100_000 + "\r\n"] * 20

    assert parted(await ask(head, *trailers))[0] == 400


@pytest.mark.parametrize(
    "pieces",
    [
        ["hello\r\n\r\n"],
        ["GET /\r\n\r\n"],
        ["GET / HTTP/1.1 extra\r\n\r\n"],
        ["GET / FTP/1.1\r\n\r\n"],
        ["GET  HTTP/1.1\r\n\r\n"],
        [b"GET /\xff HTTP/1.1\r\n\r\n"],
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"],
        ["GET foo:bar HTTP/1.1\r\n" + HOST + "\r\n"],
        ["GET / HTTP/1.1\r\n\r\n"],  # no host
        [f"GET / HTTP/1.1\r\n{HOST}Bad Name: x\r\n\r\n"],
        [f"GET / HTTP/1.1\r\n{HOST}: x\r\n\r\n"],
        [f"GET / HTTP/1.1\r\n{HOST}X: a\r\n folded\r\n\r\n"],
        [f"GET / HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n"],
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        [f"{SHOW}Content-Length: abc\r\n\r\n{{}}"],
        [f"{SHOW}Content-Length: -1\r\n\r\n{{}}"],
        [f"{SHOW}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"],
        [f"{SHOW}Content-Length: {'9' * 40}\r\n\r\n{{}}"],
        [f"{SHOW}Transfer-Encoding: gzip\r\n\r\n{{}}"],
        [f"{SHOW}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [CHUNKED + "zz\r\n{}\r\n0\r\n\r\n"],
        [CHUNKED, "zz\r\n"],
        [CHUNKED, "2\r\n{}", "x\r\n"],
        [CHUNKED, f"{'f' * 20}\r\n"],
        [CHUNKED.replace("show", f"blobs/sha256:{'0' * 64}"), "z\r\n"],
    ],
)
async def test_bytes_that_are_not_http_get_a_json_error_and_end_the_connection(ask, caplog, pieces):
    status, headers, body = parted(await ask(*pieces))

    assert status == 400
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body).keys() == {"error"}
    assert int(headers["Content-Length"]) == len(body)
    assert not re.search(rb"aiohttp|python|llhttp|traceback|b'", body, re.IGNORECASE)
    assert not caplog.records


@pytest.mark.parametrize(
    "encoding",
    [
        "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Encoding: GZip\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Encoding: zstd\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Encoding: identity, deflate\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Encoding: identity\r\ncontent-encoding: br\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Encoding: x-made-up\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_a_compressed_body_is_refused_unread(ask, encoding):
    status, headers, body = parted(await ask(SHOW + encoding))

    assert status == 415
    assert headers["Connection"] == "close"
    assert "Encoding" in json.loads(body)["error"]


@pytest.mark.parametrize("encoding", ["", "identity", " Identity , identity"])
async def test_an_identity_encoding_is_accepted(ask, encoding):
    fields = f"{HOST}Connection: close\r\nContent-Encoding: {encoding}\r\n"

    status, _, body = parted(await ask(post("/api/show", "{}", headers=fields)))

    assert (status, json.loads(body)) == (400, {"error": "model is required"})


async def test_an_unsupported_http_version_is_refused(ask):
    status, headers, body = parted(await ask(post("/api/chat", CHAT, version="2.0")))

    assert (status, json.loads(body)) == (505, {"error": "unsupported protocol version"})
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("path", ["/api/show", "/nosuch"])
async def test_an_unknown_expectation_is_refused(ask, path):
    status, headers, body = parted(await ask(post(path, "{}", headers=f"{HOST}Expect: tea\r\n")))

    assert (status, json.loads(body)) == (417, {"error": "Unknown Expect: tea"})
    assert headers["Connection"] == "close"


async def test_a_client_that_expects_100_continue_gets_it(ask):
    head = f"{HOST}Connection: close\r\nExpect: 100-continue\r\n"
    first, _, rest = (await ask(post("/api/show", "{}", headers=head))).partition(b"\r\n\r\n")

    assert first == b"HTTP/1.1 100 Continue"
    assert parted(rest)[0] == 400


async def test_a_bad_pipelined_request_does_not_cost_the_answer_before_it(connect):
    reader, writer = await connect()
    async with asyncio.timeout(DEADLINE_S):
        writer.write(f"GET /api/version HTTP/1.1\r\n{HOST}\r\n".encode())
        first = parted(await reader.readuntil(b"}"))
        writer.write(b"rubbish\r\n\r\n")
        second = parted(await reader.read())

    assert (first[0], second[0]) == (200, 400)


async def test_a_client_that_still_sends_can_read_the_refusal(connect):
    reader, writer = await connect()
    writer.write(b"rubbish\r\n\r\n" + b"x" * (1 << 20))
    async with asyncio.timeout(DEADLINE_S):
        assert parted(await reader.read())[0] == 400


@pytest.mark.parametrize(
    ("line", "status", "text", "allow"),
    [
        ("GET /nosuch", 404, b"404 page not found", None),
        ("FOO /nosuch", 404, b"404 page not found", None),
        ("FOO /api/tags", 405, b"405 method not allowed", "HEAD, GET"),
        ("get /api/tags", 405, b"405 method not allowed", "HEAD, GET"),
        ("PROPFIND /api/tags", 405, b"405 method not allowed", "HEAD, GET"),
        ("GET /api/generate", 405, b"405 method not allowed", "POST"),
        ("GET /api/delete", 405, b"405 method not allowed", "DELETE"),
        ("GET /api/blobs/x", 405, b"405 method not allowed", "HEAD, POST"),
        ("HEAD /api/ps", 405, b"", "GET"),
    ],
)
async def test_unknown_paths_are_answered_byte_for_byte_as_gin_does(ask, line, status, text, allow):
    answer = await ask(f"{line} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")

    seen, headers, body = parted(answer)
    assert (seen, body) == (status, text)
    assert headers["Content-Type"] == "text/plain"
    assert headers.get("Allow") == allow


@pytest.mark.parametrize(
    "line", ["GET /", "GET /nosuch", "POST /api/chat", "GET /api/tags/", "OPTIONS /", "rubbish"]
)
async def test_no_answer_has_a_server_header(ask, line):
    answer = await ask(f"{line} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")

    assert "Server" not in parted(answer)[1]


@pytest.mark.parametrize("header", [b"Host: \xff\xfe", b"Host: localhost\r\nOrigin: app://\xff"])
async def test_names_that_are_not_text_are_refused(ask, header, caplog):
    answer = await ask(b"GET / HTTP/1.1\r\nConnection: close\r\n" + header + b"\r\n\r\n")

    assert parted(answer)[0] == 403
    assert not caplog.records


async def test_a_long_name_is_refused_with_a_short_text(ask):
    long = "x" * 500_000
    head = f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\nOrigin: app://{long}\r\n\r\n"
    status, _, body = parted(await ask(head))

    assert (status, len(body) < 300) == (403, True)


async def test_a_bug_outside_handlers_is_answered_without_its_traceback(serve, session, caplog):
    application = web.Application()

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError("secret")

    application.router.add_get("/", handler)
    async with session.get(await serve(application)) as response:
        assert (response.status, await response.json()) == (500, {"error": "internal error"})
    assert "secret" in caplog.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=60),
    prefix=st.sampled_from([b"", b"GET / HTTP/1.1\r\n", CHUNKED.encode()]),
)
async def test_any_bytes_are_answered_or_end_the_connection(connect, data, prefix):
    reader, writer = await connect()
    writer.write(prefix + data)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    for line in answer.split(b"\r\n"):
        assert not line.startswith(b"Server:")
    assert answer == b"" or answer.startswith(b"HTTP/1.")
