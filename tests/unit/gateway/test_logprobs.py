"""Logprobs in the answers of ``/api/generate`` and ``/api/chat``: every byte of them.

The golden streams are in ``tests/fixtures/streams``; with ``UPDATE_GOLDEN`` in the environment they
are written anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ollama_async.core.conversation import Logprobs, Thought, TokenLogprob, ToolCall, ToolFunction
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

STREAMS = Path(__file__).parents[2] / "fixtures" / "streams"
GENERATE = ("/api/generate", {"prompt": "hi"})
CHAT = ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]})
ROUTES = pytest.mark.parametrize("route", [GENERATE, CHAT], ids=["generate", "chat"])


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"])})


@pytest.fixture
def post(session, url):
    """``await post(route, **fields)`` → the body of an answer."""

    async def post(route, **fields):
        path, asked = route
        body = {"model": "m", "logprobs": True, **asked, **fields}
        async with session.post(url + path, json=body) as response:
            assert response.status == 200
            return await response.read()

    return post


def token(data: bytes, logprob: float, *top: tuple[bytes, float]) -> Logprobs:
    return Logprobs([TokenLogprob(data, logprob, list(top))])


def say_everything(job):
    """Thoughts, text with a character of two tokens, and a call, in one turn of the loop."""
    call = ToolCall(ToolFunction("f", {"a": 1}, 0), "call_00000000")
    job.start()
    job.part(token(b"<think>", -0.125), token(b"hm", -0.5, (b"hm", -0.5), (b"ah", -1.5)))
    job.part(Thought("hm"), token(b"</think>", 0.0))
    job.part(token(b"caf", -1.0)).send("caf")
    job.part(token(b"\xc3", -2.0, (b"\xc3", -2.0), (b"e", -2.25)), token(b"\xa9", -0.25))
    job.send("é")
    job.part(token(b"[f]", -3.0), call)
    job.end()


def check_golden(name: str, data: bytes) -> None:
    data = re.sub(rb'("created_at":)"[^"]*"', rb'\1"T"', data)
    data = re.sub(rb'("total_duration":)\d+', rb"\g<1>9", data)
    path = STREAMS / name
    if "UPDATE_GOLDEN" in os.environ:
        path.write_bytes(data)
    assert data == path.read_bytes()


@ROUTES
@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs_have_these_bytes(post, backend, route, stream):
    backend.script = say_everything
    name = "ollama-logprobs-" + route[0].rpartition("/")[2]

    data = await post(route, top_logprobs=2, stream=stream)

    check_golden(name + (".ndjson" if stream else ".json"), data)


@ROUTES
async def test_each_token_has_an_object_whose_text_may_be_empty(post, backend, route):
    backend.script = say_everything
    lines = [json.loads(line) for line in (await post(route)).splitlines()]

    tokens = [[each["token"] for each in line.get("logprobs", [])] for line in lines]
    assert tokens == [
        ["<think>"], ["hm"], ["</think>"], ["caf"], ["\ufffd"], ["\ufffd"], ["[f]"], []
    ]  # fmt: skip
    texts = [line.get("response", line.get("message", {}).get("content")) for line in lines]
    assert texts == ["", "", "", "caf", "", "é", "", ""]


@ROUTES
@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, 0),
        ({"top_logprobs": 0}, 0),
        ({"top_logprobs": 1}, 1),
        ({"top_logprobs": 20}, 20),
        ({"logprobs": False, "top_logprobs": 5}, -1),
        ({"logprobs": None}, -1),
    ],
)
async def test_the_model_gives_as_many_as_were_asked_for(post, backend, route, fields, asked):
    backend.script = lambda job: job.start().end()
    await post(route, **fields)
    job = (await backend.job()).job
    assert job.task.logprobs == asked
    assert job.logprobs == asked + 1, "with the token's own, for the limits of what a worker sends"


@ROUTES
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": -1}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": 21, "model": "unknown"}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": "1"}, "json: cannot unmarshal string into Go struct field"),
        ({"top_logprobs": 1.5}, "json: cannot unmarshal number 1.5 into Go struct field"),
        ({"logprobs": 1}, "json: cannot unmarshal number into Go struct field"),
    ],
)
async def test_impossible_numbers_are_refused(session, url, route, fields, text):
    path, asked = route
    async with session.post(url + path, json={"model": "m", **asked, **fields}) as response:
        assert response.status == 400
        assert text in (await response.json())["error"]


@ROUTES
async def test_an_answer_without_logprobs_has_no_such_field(post, backend, route):
    backend.script = lambda job: job.start().send("a", "b").end()
    assert b"logprobs" not in await post(route, logprobs=False)
    assert b"logprobs" not in await post(route, logprobs=False, stream=False)


@ROUTES
async def test_a_restart_forgets_logprobs_too(post, backend, route):
    def dies_once(job):
        job.start().part(token(b"lost", -1.0)).send("lost")
        assert job.restart()
        job.start().part(token(b"said", -1.0)).send("said").end()

    backend.script = dies_once
    [answer] = (await post(route, stream=False)).splitlines()
    assert [each["token"] for each in json.loads(answer)["logprobs"]] == ["said"]
