"""Real worker processes that embed and rank: scripted ones, and the model of the package."""

import asyncio
import contextlib
import json
import math
import os

import numpy as np
import pytest

from ollama_async import shipped_models
from ollama_async.core.conversation import (
    Detokenize,
    Embedding,
    Inference,
    Prompt,
    Sampling,
    Tokenize,
)
from ollama_async.core.errors import BadRequest, ContextExceeded, NotSupported
from tests.integration.worker_harness import (
    Events,
    EventSink,
    new_client,
    perform,
    start,
    submit_task,
)
from tests.unit.workers.harness import DEADLINE_S

pytestmark = pytest.mark.slow

DEMO = shipped_models.FOLDER / "demo-embed.gguf"


@contextlib.asynccontextmanager
async def worker(tmp_path, script=None, *, model="m", engine="scripted", **settings):
    path = tmp_path / "scripts.json"
    path.write_text(json.dumps({"m": script or {}}))
    events = Events()
    client = new_client(events, number=1, load_timeout_s=DEADLINE_S)
    environ = {**os.environ, "OLLAMA_ASYNC_SCRIPTS": str(path)}
    settings = {"embedding": "encoder", "num_ctx": 256, "slots": 64, "batch_size": 256, **settings}
    await start(client, engine, model=model, environ=environ, **settings)
    try:
        yield client, events
    finally:
        await client.stop(10)


async def embed(client, inputs, query=None, *, number=1, **options):
    """The vectors in order, and the end."""
    events = Events()
    task = Embedding(inputs, query, **options)
    submit_task(client, number, task, sink=EventSink(events, number), vectors=len(inputs))
    await events.until_so(lambda: events.ends)
    end = events.ends[number]
    if isinstance(end, Exception):
        raise end
    parts = {part.index: part for _, part in events.of("part")}
    assert sorted(parts) == list(range(len(inputs)))
    assert end.usage.prompt == sum(part.tokens for part in parts.values())
    return [numbers(parts[index].data) for index in range(len(inputs))], end


def numbers(data):
    return np.frombuffer(data, "<f4")


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


async def test_each_input_has_a_vector_of_its_own(tmp_path):
    async with worker(tmp_path, {"dimensions": 8}) as (client, _):
        vectors, end = await embed(client, ["one", "two", "one", [1, 2, 3]])
        again, _ = await embed(client, ["one"], number=2)

    assert end.reason == "stop"
    assert end.usage.prompt == 3 * (3 + 2) + 3  # with special tokens, but for the ids
    assert [len(vector) for vector in vectors] == [8] * 4
    assert vectors[0].tolist() == vectors[2].tolist() == again[0].tolist()
    assert vectors[0].tolist() != vectors[1].tolist()


async def test_no_inputs_end_at_once(tmp_path):
    async with worker(tmp_path, {"dimensions": 8}) as (client, _):
        assert (await embed(client, []))[0] == []


async def test_many_clients_at_once_each_get_their_own(tmp_path):
    texts = {number: [f"text {number}-{index}" for index in range(7)] for number in range(1, 41)}
    async with worker(tmp_path, {"dimensions": 16}) as (client, _):
        alone = {number: await embed(client, each, number=number) for number, each in texts.items()}
        tasks = {
            number: asyncio.create_task(embed(client, each, number=100 + number))
            for number, each in texts.items()
        }
        await asyncio.gather(*tasks.values())

    for number, task in tasks.items():
        assert np.array_equal(task.result()[0], alone[number][0])


async def test_nan_and_infinity_are_passed_on(tmp_path):
    script = {"dimensions": 4, "nan_on": "bad", "inf_on": "big"}
    async with worker(tmp_path, script) as (client, _):
        (bad, big, good), _ = await embed(client, ["bad", "big", "good"])

    assert math.isnan(bad[0])
    assert math.isinf(big[0])
    assert np.isfinite(good).all()


async def test_a_ranking_model_scores_each_document(tmp_path):
    async with worker(tmp_path, {"ranks": True}) as (client, _):
        scores, end = await embed(client, ["a red fox", "blue", ""], "red fox")
        with pytest.raises(BadRequest, match="ranks documents for a query and does not embed"):
            await embed(client, ["text"], number=2)

    assert [score.tolist() for score in scores] == [[1.0], [0.0], [0.0]]
    assert end.usage.prompt == 3 * (7 + 3) + len("a red fox") + len("blue")


async def test_what_an_embedding_model_cannot_do(tmp_path):
    async with worker(tmp_path, {"dimensions": 4, "num_ctx": 16}) as (client, _):
        with pytest.raises(NotSupported, match="does not support reranking"):
            await embed(client, ["text"], "query")
        with pytest.raises(ContextExceeded, match="the input length exceeds the context length"):
            await embed(client, ["x" * 100], truncate=False)
        with pytest.raises(ContextExceeded, match=r"context length \(input 33\)"):
            await embed(client, ["x", "x" * 100], truncate=False, first=32)
        with pytest.raises(BadRequest, match="input after truncation exceeds maximum context"):
            await embed(client, ["x"], num_ctx=1)
        with pytest.raises(BadRequest, match="does not have all of these tokens"):
            await embed(client, [[1, 9999]])
        with pytest.raises(BadRequest, match="has no tokens"):
            await embed(client, [[]])
        task = Inference(Prompt(raw="hi"), Sampling())
        end, _ = await perform(client, task, 9)
        assert isinstance(end, NotSupported)
        cut, _ = await embed(client, ["x" * 100])
        assert np.array_equal(cut, (await embed(client, ["x" * 14]))[0])


async def test_chat_models_answer_as_ollamas_worker_does(tmp_path):
    text = "This server does not support embeddings. Start it with `--embeddings`"
    async with worker(tmp_path, {"tokens": "hi"}, embedding="") as (client, _):
        with pytest.raises(NotSupported) as caught:
            await embed(client, ["text"])
        with pytest.raises(NotSupported, match="does not support reranking"):
            await embed(client, ["text"], "query", number=2)

    assert caught.value.message == text
    assert caught.value.status == 501


async def test_every_model_tokenizes(tmp_path):
    async with worker(tmp_path, {"dimensions": 4}) as (client, _):
        tokens, _ = await perform(client, Tokenize("é"))
        _, text = await perform(client, Detokenize([0xC3, 0xA9]))

    assert (tokens.context, text) == ([0xC3, 0xA9], "é")


async def test_a_cancelled_request_frees_its_place(tmp_path):
    script = {"dimensions": 4, "prompt_tokens_per_second": 2000}
    async with worker(tmp_path, script) as (client, events):
        submit_task(client, 1, Embedding(["x" * 200] * 1000), vectors=1000)
        await events.until("part")
        client.cancel(1)
        vectors, _ = await embed(client, ["y"], number=2)
        await events.until_so(lambda: 1 in events.ends)

    assert len(vectors) == 1


async def test_a_cancel_ends_a_batch_that_would_take_minutes(tmp_path):
    script = {"dimensions": 4, "prompt_tokens_per_second": 1}
    async with worker(tmp_path, script) as (client, events):
        submit_task(client, 1, Embedding([[1] * 200]), vectors=1)
        await events.until("started")
        client.cancel(1)
        await events.until_so(lambda: 1 in events.ends)


async def test_a_worker_that_dies_in_the_middle_is_reported(tmp_path):
    async with worker(tmp_path, {"dimensions": 4, "crash_on": "boom"}) as (client, events):
        submit_task(client, 1, Embedding(["fine", "boom"]), vectors=2)
        reason = await events.until("lost")

    assert "model runner has unexpectedly stopped" in reason


@pytest.mark.engine
async def test_the_model_of_the_package(tmp_path):
    texts = [
        "The cat sits on the mat.",
        "A cat is sitting on a mat.",
        "The stock market fell sharply today.",
        "",
        "日本語 and other écritures",
        "long " * 5000,
        "nothing " * 3,
    ]
    settings = {"engine": "llama_cpp", "model": str(DEMO)}
    async with worker(tmp_path, **settings) as (client, _):
        together, end = await embed(client, texts * 3)
        alone = [(await embed(client, [text], number=9))[0][0] for text in texts]

    for index, vector in enumerate(together):
        assert cosine(vector, alone[index % len(texts)]) > 0.9999
    assert cosine(alone[0], alone[1]) > cosine(alone[0], alone[2]) + 0.2
    assert end.usage.prompt > 3 * 256  # the long one is cut to the context
    assert client.facts.num_ctx == 256
    assert client.facts.cache_bytes == 0
