"""Embeddings and rerank over HTTP, with real workers."""

# ruff: noqa: E501  # one refusal per line reads as a table
from __future__ import annotations

import asyncio
import base64

import httpx
import numpy as np
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer, running_servers

pytestmark = pytest.mark.slow

SCRIPTS = {
    "vectors": {"dimensions": 8, "nan_on": "bad"},
    "slow": {"dimensions": 8, "prompt_tokens_per_second": 10_000},
    "ranks": {"ranks": True},
    "talks": {"tokens": "hi"},
}
MANY = 1000
ROUNDS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory, engine_cache):
    with running_servers(tmp_path_factory.mktemp("embeddings"), engine_cache) as start:
        yield start(scripts=SCRIPTS, OLLAMA_KEEP_ALIVE="-1")


def client_of(server: RunningServer, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=LONG_WAIT_S)


async def embed(client: httpx.AsyncClient, model: str, texts: list[str]) -> list[list[float]]:
    response = await client.post("/api/embed", json={"model": model, "input": texts})
    assert response.status_code == 200, response.text
    return response.json()["embeddings"]


async def runs(server: RunningServer, pieces: int) -> None:
    """Wait until the slow model has so many jobs."""

    def has_so_many() -> bool:
        return server.metric("ollama_requests_running", model="slow:latest") == pieces

    await asyncio.to_thread(server.wait_until, has_so_many, f"ran {pieces} pieces")


def texts(number: int) -> list[str]:
    return [f"text number {index}" for index in range(number)]


async def test_each_of_many_inputs_has_its_own_vector(server):
    async with client_of(server) as client:
        together = await embed(client, "vectors", texts(100))
        alone = [(await embed(client, "vectors", [text]))[0] for text in texts(100)[::7]]
    assert together[::7] == alone
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


async def test_a_single_input_takes_its_turn_between_the_pieces_of_a_thousand(server):
    """How many single ones end while the thousand are computed does not depend on the machine."""
    async with client_of(server) as many, client_of(server, "127.0.0.2") as single:
        await embed(single, "slow", ["load"])
        large = asyncio.create_task(embed(many, "slow", texts(MANY)))
        await runs(server, 4)
        for _ in range(ROUNDS):
            await embed(single, "slow", ["one"])
            assert not large.done()
        assert len(await large) == MANY


async def test_a_queue_that_is_nearly_full_only_delays(tmp_path, engine_cache):
    slow = {"dimensions": 4, "slots": 1, "prompt_tokens_per_second": 50_000}
    with running_servers(tmp_path, engine_cache) as start:
        scripts = {"slow": slow, "quick": {"dimensions": 4}}
        server = start(scripts=scripts, OLLAMA_MAX_QUEUE="1")
        async with client_of(server) as client:
            vectors = await embed(client, "slow", texts(200))
            assert vectors == [(await embed(client, "quick", [text]))[0] for text in texts(200)]
        assert server.metric("ollama_queue_rejected_total") > 0


async def test_a_worker_that_dies_costs_a_piece(tmp_path, engine_cache):
    script = {"dimensions": 4, "crash_at": 90, "crash_once_file": str(tmp_path / "crashed")}
    with running_servers(tmp_path, engine_cache) as start:
        server = start(scripts={"dies": script, "lives": {"dimensions": 4}})
        async with client_of(server) as client:
            vectors = await embed(client, "dies", texts(200))
            assert vectors == await embed(client, "lives", texts(200))
        assert server.metric("ollama_worker_restarts_total") == 1


async def test_a_client_that_leaves_frees_the_model(server):
    async with client_of(server) as client:
        await embed(client, "slow", ["load"])
        large = asyncio.create_task(embed(client, "slow", texts(MANY)))
        await runs(server, 4)
        large.cancel()
    await runs(server, 0)
    assert server.metric("ollama_requests_queued") == 0


@pytest.mark.parametrize(
    ("path", "fields", "status", "text"),
    [
        ("/api/embed", {"model": "vectors", "input": ["ok"] * 40 + ["bad"]}, 400, "embedding contains NaN or Inf values (input 40)"),
        ("/api/embed", {"model": "vectors", "input": ["ok"] * 40 + ["too long"], "truncate": False, "options": {"num_ctx": 6}}, 400, "the input length exceeds the context length (input 40)"),
        ("/api/embeddings", {"model": "vectors", "prompt": "too long", "options": {"num_ctx": 6}}, 400, "the input length exceeds the context length"),
        ("/api/embed", {"model": "talks", "input": "x"}, 501, "This server does not support embeddings. Start it with `--embeddings`"),
        ("/api/embed", {"model": "ranks", "input": "x"}, 400, "this model ranks documents for a query and does not embed"),
        ("/api/rerank", {"model": "vectors", "query": "x", "documents": ["y"]}, 501, "This server does not support reranking. Start it with `--reranking`"),
    ],
)  # fmt: skip
async def test_errors_of_the_model(server, path, fields, status, text):
    async with client_of(server) as client:
        response = await client.post(path, json=fields)
    assert (response.status_code, response.json()) == (status, {"error": text})


async def test_documents_are_ranked(server):
    documents = [f"document {index}" for index in range(50)]
    documents[33] = "what is a panda"
    body = {"model": "ranks", "query": "what is a panda", "documents": documents, "top_n": 3}
    async with client_of(server) as client:
        response = await client.post("/v1/rerank", json=body)
    results = response.json()["results"]
    assert [result["index"] for result in results] == [33, 0, 1]


@pytest.mark.engine
async def test_the_model_of_the_package(tmp_path, engine_cache):
    sentences = ["A cat sits on the mat.", "The cat is sitting.", "Stocks fell sharply."]
    with running_servers(tmp_path, engine_cache) as start:
        server = start(offers_shipped=True)
        async with client_of(server) as client:
            vectors = np.array(await embed(client, "demo-embed", sentences))
            body = {"model": "demo-embed", "input": sentences, "encoding_format": "base64"}
            answer = (await client.post("/v1/embeddings", json=body)).json()
            text = {"model": "demo-embed", "prompt": sentences[0]}
            raw = (await client.post("/api/embeddings", json=text)).json()["embedding"]
    same = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    np.testing.assert_array_equal(np.array(same), vectors.astype(np.float32))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert raw @ vectors[0] / np.linalg.norm(raw) == pytest.approx(1, abs=1e-4)
