"""``/api/tokenize`` and ``/api/detokenize``: from the body to the task, and what comes back."""

from __future__ import annotations

import asyncio
import math

import pytest

from ollama_async.core.conversation import Detokenize, Tokenize
from ollama_async.core.errors import BadRequest, Busy
from ollama_async.gateway.body import OFF_LOOP_BYTES

TOKENIZE, DETOKENIZE = "/api/tokenize", "/api/detokenize"


@pytest.fixture
def post(session, url):
    """``await post(path, **fields)`` → the status and the JSON of an answer."""

    async def post(path: str, **fields):
        async with session.post(url + path, json={"model": "m", **fields}) as response:
            return response.status, await response.json()

    return post


async def test_a_text_has_its_tokens(post, backend):
    backend.script = lambda job: job.start().end(context=[1, 300])

    status, answer = await post(TOKENIZE, text="hi é", keep_alive="5m", options={"num_ctx": 512})

    assert status == 200
    assert list(answer) == ["model", "tokens", "total_duration", "load_duration"]
    assert (answer["model"], answer["tokens"], answer["load_duration"]) == (
        "m",
        [1, 300],
        5_000_000,
    )
    assert answer["total_duration"] > 0
    job = (await backend.job()).job
    assert job.task == Tokenize("hi é", add_special=False, parse_special=True)
    assert (job.keep_alive_s, job.load_options.num_ctx) == (300.0, 512)
    assert job.target.name == "m:latest"


async def test_tokens_have_their_text(post, backend):
    backend.script = lambda job: job.start().send("h", "i").end()

    status, answer = await post(DETOKENIZE, tokens=[1, 300], keep_alive=-1)

    assert status == 200
    assert list(answer) == ["model", "text", "total_duration", "load_duration"]
    assert answer["text"] == "hi"
    job = (await backend.job()).job
    assert (job.task, job.keep_alive_s) == (Detokenize([1, 300]), math.inf)


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"content": "a"}, Tokenize("a")),
        ({"prompt": "a"}, Tokenize("a")),
        ({"prompt": "a", "content": "b", "text": "c"}, Tokenize("c")),
        ({"text": ""}, Tokenize("")),
        ({"text": None, "content": "b"}, Tokenize("b")),
        ({"TEXT": "a"}, Tokenize("a")),
        ({"text": "a", "add_special": True, "parse_special": False}, Tokenize("a", True, False)),
        ({"text": "a", "with_pieces": True}, Tokenize("a")),
        ({"text": "\ud800"}, Tokenize("\ufffd")),
        ({"text": "x" * 2 * OFF_LOOP_BYTES}, Tokenize("x" * 2 * OFF_LOOP_BYTES)),
    ],
)
async def test_the_text_has_several_names(post, backend, fields, task):
    backend.script = lambda job: job.start().end()
    status, answer = await post(TOKENIZE, **fields)
    assert (status, answer["tokens"]) == (200, [])
    assert (await backend.job()).job.task == task


@pytest.mark.parametrize(
    ("path", "fields", "status", "text"),
    [
        (TOKENIZE, {}, 400, "text is required"),
        (TOKENIZE, {"text": None}, 400, "text is required"),
        (TOKENIZE, {"text": 5}, 400, "number into Go struct field TokenizeRequest.text"),
        (TOKENIZE, {"text": "a", "add_special": 1}, 400, "add_special of type bool"),
        (TOKENIZE, {"text": "a", "keep_alive": {}}, 400, "Unsupported type"),
        (TOKENIZE, {"text": "a", "options": {"num_ctx": "1"}}, 500, "must be of type integer"),
        (TOKENIZE, {"text": "a", "options": {"num_ctx": -1}}, 400, 'option "num_ctx"'),
        (TOKENIZE, {"text": "a", "model": ""}, 400, "model is required"),
        (TOKENIZE, {"text": "a", "model": " "}, 400, "model is required"),
        (TOKENIZE, {"text": "a", "model": "x" * 5000}, 400, "invalid model name"),
        (TOKENIZE, {"text": "a", "model": "unknown"}, 404, "model 'unknown' not found"),
        (DETOKENIZE, {}, 400, "tokens is required"),
        (DETOKENIZE, {"tokens": "a"}, 400, "DetokenizeRequest.tokens of type []int"),
        (DETOKENIZE, {"tokens": ["a"]}, 400, "DetokenizeRequest.tokens"),
        (DETOKENIZE, {"tokens": [1.5]}, 400, "DetokenizeRequest.tokens"),
        (DETOKENIZE, {"tokens": [2**70]}, 400, "DetokenizeRequest.tokens"),
        (DETOKENIZE, {"tokens": [1], "model": "unknown"}, 404, "model 'unknown' not found"),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(post, path, fields, status, text):
    answered, error = await post(path, **fields)
    assert answered == status
    assert text in error["error"]


async def test_errors_of_the_queue_and_of_the_worker_have_ollamas_shape(post, backend):
    backend.script = lambda job: job.fail(BadRequest("tokens: no"))
    assert await post(DETOKENIZE, tokens=[5]) == (400, {"error": "tokens: no"})
    backend.refusal = Busy("server busy")
    assert await post(TOKENIZE, text="a") == (503, {"error": "server busy"})


async def test_a_client_that_leaves_cancels_the_job(session, url, backend):
    asking = session.post(url + TOKENIZE, json={"model": "m", "text": "a"})
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking.__aenter__())
        job = await backend.job()
        task.cancel()
    await job.cancelled.wait()
