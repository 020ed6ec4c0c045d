"""What a captured worker leaves in the memory of its prompt cache. The next worker of the model
starts, and answers what it would have answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import random
import struct
from pathlib import Path

import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.cache_memory import CacheMemory
from ollama_async.workers.child.state_memory import DATA_OFFSET, PAGE_BYTES
from tests.integration.worker_harness import Events, EventSink, new_client, submit_task
from tests.unit.workers.harness import DEADLINE_S, plan

pytestmark = [pytest.mark.slow, pytest.mark.engine]

NUM_CTX = 256
LIMIT_BYTES = 8 << 20
DIRECTORY, RECORD_BYTES = 64, 64
ENVIRON = {"PATH": os.environ["PATH"]}
CHATS = [f"{name} {'and the people of the water ' * 20}" for name in ("how", "when", "why")]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def memory():
    made = CacheMemory(LIMIT_BYTES)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def worker(memory, model, number, engine_cache):
    """With one slot; it ends in good order, and leaves its memory."""
    environ = {**ENVIRON, "OLLAMA_ASYNC_CACHE": str(engine_cache)}
    spec = {"engine": "llama_cpp", "model": str(model), "num_ctx": NUM_CTX, "slots": 1}
    lent = memory.lend(number, plan(environ=environ, cache_bytes=LIMIT_BYTES, **spec))
    events = Events()
    client = new_client(events, number=number)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await client.start(lent)
            yield client
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await client.stop(10)
            await client.wait_gone()
        memory.take_back(number)


async def ask(client, text, number):
    """The answer, and how many tokens were restored."""
    events = Events()
    sampling = Sampling(temperature=0, num_predict=12)
    task = Inference(Prompt(raw=text), sampling)
    submit_task(client, number, task, sink=EventSink(events, number), num_predict=12)
    await events.until_so(lambda: events.ends)
    return events.text(number), events.ends[number].usage.restored


async def ask_all(client):
    found = [await ask(client, text, number) for number, text in enumerate(CHATS, 1)]
    return [text for text, _ in found], [restored for _, restored in found]


def overwrite(mapped, chance):
    for _ in range(200):
        mapped[chance.randrange(len(mapped))] = chance.randrange(256)


def fill(mapped, _chance):
    mapped[:] = b"\xff" * len(mapped)


def fill_records(mapped, _chance):
    mapped[DIRECTORY:DATA_OFFSET] = b"\xff" * (DATA_OFFSET - DIRECTORY)


def change_states(mapped, chance):
    """Each byte of the data may be another."""
    for _ in range(2000):
        at = chance.randrange(DATA_OFFSET, DATA_OFFSET + 100 * PAGE_BYTES)
        mapped[at] ^= 1 << chance.randrange(8)


def point_beyond(mapped, _chance):
    """Records whose offsets and sizes lie about the memory."""
    for at in range(DIRECTORY, DIRECTORY + 8 * RECORD_BYTES, RECORD_BYTES):
        struct.pack_into("=2Q", mapped, at + 8, len(mapped) - 8, 1 << 62)


def repeat_records(mapped, _chance):
    record = mapped[DIRECTORY : DIRECTORY + RECORD_BYTES]
    mapped[DIRECTORY:DATA_OFFSET] = record * ((DATA_OFFSET - DIRECTORY) // RECORD_BYTES)


def change_nothing(_mapped, _chance):
    pass


@pytest.mark.parametrize(
    "attack",
    [overwrite, fill, fill_records, change_states, point_beyond, repeat_records, change_nothing],
)
async def test_the_next_worker_answers_as_if_it_was_the_first(memory, model, engine_cache, attack):
    async with worker(memory, model, 1, engine_cache) as client:
        expected, _ = await ask_all(client)
    fd = memory.lend(2, plan(engine="llama_cpp", model=str(model))).spec.cache_fd
    with mmap.mmap(fd, 0) as mapped:
        attack(mapped, random.Random(1))
    memory.take_back(2)

    async with worker(memory, model, 3, engine_cache) as client:
        answers, restored = await ask_all(client)
    assert answers == expected
    if attack is change_nothing:
        assert min(restored) > 100
    if attack in {fill, fill_records, point_beyond}:
        assert not any(restored)


async def test_flags_of_the_shared_descriptor_do_not_matter(memory, model, engine_cache):
    """They belong to the open file, so a worker can set them for the parent and the next worker."""
    async with worker(memory, model, 1, engine_cache) as client:
        expected, _ = await ask_all(client)
    fd = memory.lend(2, plan(engine="llama_cpp", model=str(model))).spec.cache_fd
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
    os.lseek(fd, 1 << 40, os.SEEK_SET)
    memory.take_back(2)

    async with worker(memory, model, 3, engine_cache) as client:
        answers, restored = await ask_all(client)
    assert answers == expected
    assert min(restored) > 100
