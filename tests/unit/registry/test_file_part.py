"""Parts of files as bodies of requests."""

import asyncio
import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from io import FileIO

import pytest

from ollama_async.core.errors import StorageFailed
from ollama_async.registry.upload import READ_BYTES, SENT_BYTES, FilePart

DATA = random.Random(1).randbytes(READ_BYTES * 2 + 12345)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def part(path):
    """Makes parts of the file; what they have given away is in ``sent``."""
    with FileIO(path) as file, ThreadPoolExecutor(1) as threads:

        def make(start, end):
            make.sent = []
            return FilePart(file, start, end, threads=threads, sent=make.sent.append)

        yield make


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, len(DATA)), (1, SENT_BYTES + 1), (READ_BYTES - 1, READ_BYTES + 1), (7, 7)],
)
async def test_every_iteration_gives_the_part_in_small_pieces(part, start, end):
    async with part(start, end) as opened:
        for _ in range(2):
            pieces = [piece async for piece in opened]
            assert b"".join(pieces) == DATA[start:end]
            assert all(len(piece) <= SENT_BYTES for piece in pieces)
    assert part.sent[-1:] == ([end - start] if end > start else [])
    if end > start:
        assert opened.md5 == hashlib.md5(DATA[start:end]).digest()


async def test_the_sum_is_there_only_when_all_was_given(part):
    async with part(0, len(DATA)) as opened:
        iteration = aiter(opened)
        await anext(iteration)
        assert opened.md5 == b""


async def test_a_file_that_becomes_shorter_is_the_error_of_the_context(part, path):
    with pytest.raises(StorageFailed, match=r"blob has become shorter$"):  # noqa: PT012
        async with part(0, len(DATA)) as opened:
            os.truncate(path, READ_BYTES)
            try:
                async for _ in opened:
                    pass
            except StorageFailed as error:
                raise ConnectionError from error  # as HTTP clients do


async def test_a_cancellation_is_not_translated(part, path):
    os.truncate(path, 0)
    with pytest.raises(asyncio.CancelledError):  # noqa: PT012
        async with part(0, 1) as opened:
            with pytest.raises(StorageFailed):
                await anext(aiter(opened))
            raise asyncio.CancelledError


async def test_after_its_context_nothing_is_read_or_reported(part):
    async with part(0, len(DATA)) as opened:
        iteration = aiter(opened)
        await anext(iteration)
        told = list(part.sent)
    while True:
        try:
            await anext(iteration)
        except StopAsyncIteration:
            break
    assert part.sent == told
    assert opened.md5 == b""
