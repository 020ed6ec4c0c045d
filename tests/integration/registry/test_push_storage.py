"""Pushes to a registry that sends uploads elsewhere, and to one that keeps what a cut left.

Debian's registry does neither, so a small one of ours stands in for Ollama's.
"""

import asyncio
import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed

pytestmark = pytest.mark.slow
CHUNK = 256 << 10
MODEL = bytes(range(256)) * (4 * CHUNK // 256) + b"the end"


class SmallRegistry:
    """``storage``: where parts are sent, "" to take them here. ``cut_at``: hang up once, when so
    many bytes of a blob have come. Requests carry the token ``secret`` or are refused.
    """

    def __init__(self):
        self.storage = ""
        self.cut_at = 0
        self.blobs = {}
        self.manifests = {}
        self.parts = {}
        self.etags = []
        self.stored = []
        self.taken = 0
        self.most_at_once = 0
        self._at_once = 0

    async def handle(self, request):
        if request.path == "/token":
            return web.json_response({"token": "secret"})
        if request.headers.get("Authorization") != "Bearer secret":
            challenge = f'Bearer realm="http://{request.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if "/manifests/" in request.path:
            self.manifests[request.path] = await request.read()
            return web.Response(status=201)
        if "/uploads/" not in request.path:
            return web.Response(status=200 if request.path.split("/")[-1] in self.blobs else 404)
        return await getattr(self, request.method.lower())(request)

    async def post(self, request):
        self.parts = {}
        return web.Response(status=202, headers={"Location": f"{request.path}session?state=0%2B"})

    async def get(self, request):
        end = max(self.size - 1, 0)
        headers = {"Range": f"0-{end}", "Location": f"{request.path}?state={self.size}"}
        return web.Response(status=204, headers=headers)

    @property
    def size(self):
        return sum(map(len, self.parts.values()))

    async def patch(self, request):
        start, end = map(int, request.headers["Content-Range"].split("-"))
        assert int(request.headers["Content-Length"]) == end - start + 1
        following = f"{request.path}?state={end + 1}"
        if self.storage:
            assert request.headers["X-Redirect-Uploads"] == "1"
            location = f"http://{self.storage}/part/{start}?signed=%2Fx%3D"
            headers = {"Location": location, "Docker-Upload-Location": following}
            return web.Response(status=307, headers=headers)
        assert start == self.size, "a part that does not follow"
        part = bytearray()
        async for piece in request.content.iter_any():
            part += piece
            self.taken += len(piece)
            if self.cut_at and start + len(part) >= self.cut_at:
                self.cut_at, self.parts[start] = 0, bytes(part)
                request.transport.abort()
                return web.Response()
        self.parts[start] = bytes(part)
        return web.Response(status=202, headers={"Location": following})

    async def put(self, request):
        digest, etag = request.query["digest"], request.query.get("etag")
        data = b"".join(self.parts[start] for start in sorted(self.parts))
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        self.blobs[digest] = data
        self.etags.append((etag, len(self.parts)))
        return web.Response(status=201)

    async def store(self, request):
        """The storage: another host, that knows no tokens."""
        self.stored.append(request)
        assert parse_qs(urlsplit(request.raw_path).query) == {"signed": ["/x="]}
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.parts[int(request.path.split("/")[-1])] = await request.read()
        self._at_once -= 1
        return web.Response(status=200)


@pytest.fixture
async def small(serve):
    small = SmallRegistry()
    async with serve(small.handle) as small.host:
        yield small


async def test_parts_go_to_the_storage_without_the_token(small, serve, push, keep, digest):
    async with serve(small.store) as small.storage:
        manifest = keep(f"{small.host}/me/x", MODEL)
        statuses = await push(f"{small.host}/me/x")
    assert statuses[-1] == {"status": "success"}
    assert small.blobs[digest(MODEL)] == MODEL
    assert small.manifests == {"/v2/me/x/manifests/latest": manifest}
    assert {request.method for request in small.stored} == {"PUT"}
    for request in small.stored:
        assert not {"Authorization", "Content-Range", "Content-Type"} & set(request.headers)
    pieces = [MODEL[start : start + CHUNK] for start in range(0, len(MODEL), CHUNK)]
    sums = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    assert (f"{hashlib.md5(sums).hexdigest()}-{len(pieces)}", len(pieces)) in small.etags
    assert small.most_at_once <= 4  # connections of the test's policy


async def test_parts_go_several_at_a_time_and_are_sent_again(small, serve, push, keep, digest):
    together = asyncio.Barrier(3)
    failed = []

    async def storage(request):
        if request.path not in failed:
            failed.append(request.path)
            async with asyncio.timeout(20):
                await together.wait()  # three at once, or nobody goes on
            return web.Response(status=503)
        return await small.store(request)

    # the config, which all have, is one part only: it goes first, by itself
    async with serve(small.store) as small.storage:
        keep(f"{small.host}/me/config", b"another")
        await push(f"{small.host}/me/config")
    async with serve(storage) as small.storage:
        data = MODEL[: 3 * CHUNK]
        keep(f"{small.host}/me/x", data)
        assert (await push(f"{small.host}/me/x"))[-1] == {"status": "success"}
    assert small.blobs[digest(data)] == data
    assert len(failed) == 3


async def test_redirects_to_cloud_metadata_are_rejected(small, push, keep):
    small.storage = "169.254.169.254"
    keep(f"{small.host}/me/x", MODEL)
    with pytest.raises(RegistryFailed, match=r"leads to a private address \(169.254.169.254\)"):
        await push(f"{small.host}/me/x")


async def test_what_arrived_before_a_cut_is_not_sent_again(small, push, keep, digest):
    small.cut_at = 2 * CHUNK + 100_000
    keep(f"{small.host}/me/x", MODEL)
    statuses = await push(f"{small.host}/me/x")
    assert statuses[-1] == {"status": "success"}
    assert small.cut_at == 0
    assert small.blobs[digest(MODEL)] == MODEL
    # what was in the sockets and not read is lost, nothing else
    assert small.taken < len(MODEL) + 1000
    done = [status.get("completed", 0) for status in statuses if status.get("total") == len(MODEL)]
    assert done[-1] == len(MODEL)
    assert max(done) == len(MODEL)


async def test_an_empty_file_is_one_too(small, push, keep, digest):
    keep(f"{small.host}/me/x", MODEL, license="")
    assert (await push(f"{small.host}/me/x"))[-1] == {"status": "success"}
    assert small.blobs[digest(b"")] == b""
    assert {etag for etag, _ in small.etags} == {None}
