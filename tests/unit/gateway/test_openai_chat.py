"""``/v1/chat/completions``: what reaches the queue, what is on the wire, and every refusal."""

from __future__ import annotations

import base64
import json

import pytest

from ollama_async.core.conversation import (
    Thought,
    ToolCall,
    ToolFunction,
)
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

PATH = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "hi"}]
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": [True, None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PNG = base64.b64encode(b"\x89PNG pixels").decode()


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"]), "plain": Script()})


@pytest.fixture
def post(session, url):
    """``await post(**fields)`` → the response and its JSON, or the list of its events."""

    async def post(**fields):
        body = {"model": "m", "messages": ASKED, **fields}
        async with session.post(url + PATH, json=body) as response:
            text = await response.text()
            if response.headers["Content-Type"] == "text/event-stream":
                return response, [
                    event.removeprefix("data: ")
                    for event in text.removesuffix("\n\n").split("\n\n")
                ]
            return response, json.loads(text)

    return post


@pytest.fixture
def ask(post, backend):
    """``await ask(**fields)`` → the inference that reaches the queue."""

    async def ask(**fields):
        backend.script = answer_ok
        response, body = await post(**fields)
        assert response.status == 200, body
        return (await backend.job()).job.task

    return ask


def answer_ok(job):
    job.start().send("ok").end()


def say_everything(job):
    job.start()
    job.part(Thought("h"), Thought("m"))
    job.send("so ", "on")
    job.part(*CALLS)
    job.end()


# -- answers --------------------------------------------------------------------------------------


async def test_an_answer_is_one_object(post, backend):
    backend.script = say_everything

    response, body = await post()

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": "m",
        "system_fingerprint": "fp_ollama",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "so on",
                    "reasoning": "hm",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "call_00000000",
                            "index": 0,
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"b":1,"a":[true,null]}'},
                        },
                        {
                            "id": "call_11111111",
                            "index": 1,
                            "type": "function",
                            "function": {"name": "g", "arguments": "{}"},
                        },
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }


async def test_a_stream_has_the_role_first_and_the_reason_last(post, backend):
    backend.script = say_everything

    response, events = await post(stream=True)

    assert response.headers["Content-Type"] == "text/event-stream"
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert not any("usage" in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice["delta"] for choice in choices]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1] == {"reasoning": "hm", "reasoning_content": "hm"}
    assert deltas[2] == {"content": "so on"}
    assert [call["index"] for call in deltas[3]["tool_calls"]] == [0, 1]
    assert deltas[4:] == [{}]
    assert [choice["finish_reason"] for choice in choices] == [*[None] * 4, "tool_calls"]


async def test_ids_are_unique(post, backend):
    backend.script = answer_ok

    ids = {(await post())[1]["id"] for _ in range(20)}

    assert len(ids) == 20
