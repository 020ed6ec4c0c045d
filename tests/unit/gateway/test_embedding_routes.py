"""``/api/embed``, ``/api/embeddings``, ``/v1/embeddings`` and rerank: what reaches the queue, the
bytes of the answers, and every refusal.
"""

# ruff: noqa: E501  # one refusal per line reads as a table
from __future__ import annotations

import base64
import io
import json
import math
import re
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Vector
from ollama_async.core.errors import Busy, ContextExceeded
from ollama_async.gateway.body import OFF_LOOP_BYTES

EMBED = "/api/embed"
OLD = "/api/embeddings"
OPENAI = "/v1/embeddings"
RERANK = "/v1/rerank"


@pytest.fixture
def post(session, url):
    """``await post(path, **fields)`` → (response, its bytes)."""

    async def post(path: str, body: bytes = b"", **fields):
        data = io.BytesIO(body or json.dumps(fields).encode())
        async with session.post(url + path, data=data) as response:
            return response, await response.read()

    return post


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def gives(*numbers: float):
    """A script: every input has this vector, and as many tokens as characters or ids."""

    def play(job):
        if job.job.task is None:
            job.end("load")
            return
        job.start()
        for index, text in enumerate(job.job.task.inputs):
            job.part(Vector(index, vector(*numbers), len(text)))
        job.end()

    return play


def without_durations(body: bytes) -> bytes:
    return re.sub(rb'"(total|load)_duration":[1-9][0-9]*', rb'"\1_duration":1', body)


# the bytes of answers


async def test_embed_normalises_and_answers_in_gos_order(post, backend):
    backend.script = gives(3, 4)

    response, body = await post(EMBED, model="M:Latest", input=["abc", "de"])

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert without_durations(body) == (
        b'{"model":"M:Latest","embeddings":[[0.6,0.8],[0.6,0.8]],'
        b'"total_duration":1,"load_duration":1,"prompt_eval_count":5}'
    )
    job = (await backend.job()).job
    assert job.task.inputs == ["abc", "de"]
    assert (job.task.query, job.task.truncate, job.task.num_ctx) == (None, True, 0)
    assert (job.vectors, job.num_predict, job.client) == (2, 0, "127.0.0.1")


async def test_the_older_route_gives_the_vector_as_it_is(post, backend):
    backend.script = gives(3, 0.1)

    _, body = await post(OLD, model="m", prompt="abc")

    assert body == b'{"embedding":[3.0,0.10000000149011612]}'
    assert not (await backend.job()).job.task.truncate


async def test_openai_numbers(post, backend):
    backend.script = gives(3, 4)

    _, body = await post(OPENAI, model="m", input=["abc", "de"], user="somebody")

    assert body == (
        b'{"object":"list","data":[{"object":"embedding","embedding":[0.6,0.8],"index":0},'
        b'{"object":"embedding","embedding":[0.6,0.8],"index":1}],"model":"m",'
        b'"usage":{"prompt_tokens":5,"total_tokens":5}}'
    )


async def test_openai_base64(post, backend):
    backend.script = gives(3, 4)

    _, body = await post(OPENAI, model="m", input="abc", encoding_format="BASE64")

    (item,) = json.loads(body)["data"]
    numbers = struct.unpack("<2f", base64.b64decode(item["embedding"]))
    assert numbers == (np.float32(0.6), np.float32(0.8))


@pytest.mark.parametrize("path", [EMBED, OPENAI])
@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [(0, 3), (-1, 3), (1, 1), (2, 2), (3, 3), (4, 3), (2**63 - 1, 3)],
)
async def test_dimensions_cut_and_normalise_again(post, backend, path, dimensions, expected):
    backend.script = gives(1, 2, 2)

    _, body = await post(path, model="m", input="a", dimensions=dimensions)

    answer = json.loads(body)
    got = answer["embeddings"][0] if path == EMBED else answer["data"][0]["embedding"]
    whole = np.array([1, 2, 2], np.float32) / 3
    cut = whole[:expected] / np.linalg.norm(whole[:expected])
    np.testing.assert_allclose(got, cut, rtol=1e-6)


async def test_a_vector_of_zeros_stays(post, backend):
    backend.script = gives(0, 0)

    _, body = await post(EMBED, model="m", input="a")

    assert json.loads(body)["embeddings"] == [[0, 0]]


async def test_a_large_vector_does_not_overflow(post, backend):
    backend.script = gives(3e38, 0)

    _, body = await post(EMBED, model="m", input="a")

    assert json.loads(body)["embeddings"] == [[1, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
async def test_a_number_that_is_not_finite_is_refused(post, backend, bad):
    backend.script = gives(1, bad)

    for path, fields in [(EMBED, {"input": "a"}), (OLD, {"prompt": "a"}), (OPENAI, {"input": "a"})]:
        response, body = await post(path, model="m", **fields)
        message = json.loads(body)["error"]
        message = message["message"] if path == OPENAI else message
        assert (response.status, message) == (400, "embedding contains NaN or Inf values")


async def test_of_many_inputs_the_error_says_which(post, backend):
    def play(job):
        job.start()
        job.part(Vector(0, vector(1, 1), 1), Vector(1, vector(1, math.nan), 1)).end()

    backend.script = play

    _, body = await post(EMBED, model="m", input=["a", "b"])

    assert json.loads(body) == {"error": "embedding contains NaN or Inf values (input 1)"}


# what is embedded


@pytest.mark.parametrize("given", [{}, {"input": None}, {"input": ""}, {"input": []}])
async def test_without_input_the_model_is_loaded(post, backend, given):
    backend.script = gives(1)

    _, body = await post(EMBED, model="m", keep_alive=0, **given)

    assert body == b'{"model":"m","embeddings":[]}'
    job = (await backend.job()).job
    assert job.task is None
    assert job.keep_alive_s == 0


async def test_without_a_prompt_the_model_is_loaded(post, backend):
    backend.script = gives(1)

    _, body = await post(OLD, model="m", prompt="")

    assert body == b'{"embedding":[]}'


async def test_an_empty_text_in_a_list_is_embedded(post, backend):
    backend.script = gives(1)

    await post(EMBED, model="m", input=[""])

    assert (await backend.job()).job.task.inputs == [""]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("", [""]),
        ("a", ["a"]),
        (["a", ""], ["a", ""]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
async def test_openai_inputs(post, backend, given, inputs):
    backend.script = gives(1)

    response, _ = await post(OPENAI, model="m", input=given)

    assert response.status == 200
    assert (await backend.job()).job.task.inputs == inputs


async def test_options_are_those_of_generate(post, backend):
    backend.script = gives(1)

    await post(
        EMBED,
        model="m",
        input="a",
        truncate=False,
        keep_alive="1m",
        options={"num_ctx": 64, "num_gpu": 1, "temperature": 0},
    )

    job = (await backend.job()).job
    assert (job.task.num_ctx, job.load_options.num_ctx, job.load_options.num_gpu) == (64, 64, None)
    assert (job.task.truncate, job.keep_alive_s) == (False, 60)


async def test_a_context_of_few_tokens_is_the_limit_of_an_input(backend, post):
    backend.script = gives(1)
    await post(EMBED, model="m", input="a", options={"num_ctx": 3})
    job = (await backend.job()).job
    assert (job.task.num_ctx, job.load_options.num_ctx) == (3, 4)


# rerank


def scores(*numbers: float):
    def play(job):
        job.start()
        for index, number in enumerate(numbers):
            job.part(Vector(index, vector(number), 5))
        job.end()

    return play


@pytest.mark.parametrize("path", [RERANK, "/api/rerank", "/v2/rerank"])
async def test_rerank_sorts_by_score(post, backend, path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    backend.script = scores(0, 1000, -2)

    _, body = await post(path, model="m", query="q", documents=["a", {"text": "b"}, "c"])

    assert body == (
        b'{"id":"rerank-000000000000000000000000","object":"list","model":"m","results":['
        b'{"index":1,"relevance_score":1.0},{"index":0,"relevance_score":0.5},'
        b'{"index":2,"relevance_score":0.11920292202211755}],'
        b'"usage":{"prompt_tokens":15,"total_tokens":15},'
        b'"meta":{"tokens":{"input_tokens":15,"output_tokens":0}}}'
    )
    task = (await backend.job()).job.task
    assert (task.inputs, task.query) == (["a", "b", "c"], "q")


async def test_rerank_gives_the_best_documents(post, backend):
    backend.script = scores(0, 1000, -1000)

    _, body = await post(
        RERANK, model="m", query="q", documents=["a", 'b"', "c"], top_n=2, return_documents=True
    )

    assert json.loads(body)["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": 'b"'}},
        {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
    ]


async def test_equal_scores_keep_the_order_of_the_documents(post, backend):
    backend.script = scores(*[1] * 16)

    _, body = await post(RERANK, model="m", query="q", documents=["a"] * 16)

    assert [result["index"] for result in json.loads(body)["results"]] == list(range(16))


@pytest.mark.parametrize("numbers", [(1, 2), (math.nan,)])
async def test_what_is_no_score_is_refused(post, backend, numbers):
    backend.script = gives(*numbers)

    response, body = await post(RERANK, model="m", query="q", documents=["a"])

    assert response.status == 400
    assert json.loads(body)["error"]["message"] == "the model did not give each document a score"


# refusals


REFUSALS = [
    (EMBED, b'{"model":', 400, "unexpected EOF"),
    (EMBED, b'{"model":"m","input":1}', 400, "invalid input type"),
    (EMBED, b'{"model":"m","input":{}}', 400, "invalid input type"),
    (EMBED, b'{"model":"m","input":0}', 400, "invalid input type"),
    (EMBED, b'{"model":"m","input":["a",1]}', 400, "invalid input type"),
    (EMBED, b'{"model":"m","input":["a",null]}', 400, "invalid input type"),
    (EMBED, b'{"model":"m","input":[[1]]}', 400, "invalid input type"),
    (EMBED, b'{"model":1,"input":1}', 400, "json: cannot unmarshal number into Go struct field EmbedRequest.model of type string"),
    (EMBED, b'{"model":"m","dimensions":1.5}', 400, "json: cannot unmarshal number 1.5 into Go struct field EmbedRequest.dimensions of type int"),
    (EMBED, b'{"model":"m","keep_alive":"1"}', 400, 'time: missing unit in duration "1"'),
    (EMBED, b'{"input":"a"}', 404, "model '' not found"),
    (EMBED, b'{"model":"x","input":"a"}', 404, 'model "x" not found, try pulling it first'),
    (EMBED, b'{"model":"m","input":"a","options":{"num_ctx":"1"}}', 500, 'option "num_ctx" must be of type integer'),
    (OLD, b'{"prompt":"a"}', 400, "model is required"),
    (OLD, b'{"model":"x","prompt":"a"}', 404, 'model "x" not found, try pulling it first'),
    (OLD, b'{"model":"m","prompt":["a"]}', 400, "json: cannot unmarshal array into Go struct field EmbeddingRequest.prompt of type string"),
    (OPENAI, b'{"model":"m"}', 400, "invalid input"),
    (OPENAI, b'{"model":"m","input":[]}', 400, "invalid input"),
    (OPENAI, b'{"model":"m","input":5}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":[[]]}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":[1,"a"]}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":[-1]}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":[true]}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":[1.5]}', 400, "invalid input type"),
    (OPENAI, b'{"model":"m","input":"a","encoding_format":"hex"}', 400, "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."),
    (OPENAI, b'{"model":1,"input":"a"}', 400, "json: cannot unmarshal number into Go struct field EmbedRequest.model of type string"),
    (OPENAI, b"[]", 400, "json: cannot unmarshal array into Go value of type openai.EmbedRequest"),
    (OPENAI, b'{"model":"x","input":"a"}', 404, 'model "x" not found, try pulling it first'),
    (RERANK, b'{"query":"q","documents":["a"]}', 400, "model is required"),
    (RERANK, b'{"model":"m","documents":["a"]}', 400, "query is required"),
    (RERANK, b'{"model":"m","query":"q"}', 400, "documents are required"),
    (RERANK, b'{"model":"m","query":"q","documents":[]}', 400, "documents are required"),
    (RERANK, b'{"model":"m","query":"q","documents":"a"}', 400, "documents must be strings, or objects with a text"),
    (RERANK, b'{"model":"m","query":"q","documents":[1]}', 400, "documents must be strings, or objects with a text"),
    (RERANK, b'{"model":"m","query":"q","documents":[{"title":"a"}]}', 400, "documents must be strings, or objects with a text"),
    (RERANK, b'{"model":"m","query":"q","documents":["a"],"top_n":0}', 400, "top_n must be at least 1"),
    ("/api/rerank", b'{"model":"m","query":"q"}', 400, "documents are required"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "text"), REFUSALS)
async def test_refusals(post, path, body, status, text):
    response, answer = await post(path, body)

    error = json.loads(answer)["error"]
    if path.startswith("/v1"):
        assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
        error = error["message"]
    assert (response.status, error) == (status, text)


@pytest.mark.parametrize("path", [EMBED, OLD, OPENAI, RERANK, "/api/rerank"])
async def test_no_body(session, url, path):
    async with session.post(url + path) as response:
        assert response.status == 400
        assert "missing request body" in await response.text()


async def test_too_many_inputs_are_refused(post):
    response, body = await post(EMBED, model="m", input=["a"] * 100_001)

    assert response.status == 400
    assert json.loads(body)["error"] == "too many inputs: 100001, at most 100000 in one request"


async def test_a_million_inputs_are_refused(post):
    many = b",".join([b'"a"'] * 1_000_000)

    response, body = await post(EMBED, b'{"model":"m","input":[%b]}' % many)

    assert response.status == 400
    assert json.loads(body)["error"] == "the request body holds too many JSON values"


@pytest.mark.parametrize("path", [EMBED, OPENAI])
async def test_errors_of_the_model_have_the_protocols_shape(post, backend, path):
    backend.script = lambda job: job.start().fail(
        ContextExceeded("the input length exceeds the context length")
    )

    response, body = await post(path, model="m", input="a")

    assert response.status == 400
    error = json.loads(body)["error"]
    if path == OPENAI:
        assert error["code"] == "context_length_exceeded"
        error = error["message"]
    assert error == "the input length exceeds the context length"


async def test_a_full_queue_is_503(post, backend):
    backend.refusal = Busy(retry_after_s=7)

    response, _ = await post(EMBED, model="m", input="a")

    assert (response.status, response.headers["Retry-After"]) == (503, "7")


# hostile bodies


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["model", "input", "prompt", "dimensions", "encoding_format", "keep_alive", "options"]
NAMES += ["truncate", "query", "documents", "top_n", "return_documents", "user"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    path=st.sampled_from([EMBED, OLD, OPENAI, RERANK, "/api/rerank"]),
    body=st.dictionaries(st.sampled_from(NAMES), VALUES),
    cut=st.integers(0, 3),
)
async def test_no_body_is_a_server_error(post, backend, path, body, cut):
    backend.script = gives(1)
    data = json.dumps({"model": "m", **body}).encode()

    response, answer = await post(path, data[: len(data) - cut])

    assert response.status in {200, 400, 404} or b"must be of type" in answer
    assert set(json.loads(answer)) & {"error", "embedding", "embeddings", "data", "results"}


async def test_large_answers_are_written_in_a_thread(post, backend):
    backend.script = gives(*[0.5] * (OFF_LOOP_BYTES // 4))

    _, body = await post(EMBED, model="m", input=["a"] * 3)

    rows = json.loads(body)["embeddings"]
    assert [len(row) for row in rows] == [OFF_LOOP_BYTES // 4] * 3
