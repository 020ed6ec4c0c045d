"""``/api/generate`` and ``/api/chat`` with models that do more than talk: what is on the wire."""

from __future__ import annotations

import json

import pytest

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import everything

GENERATE = "/api/generate"
CHAT = "/api/chat"
ASKED = [{"role": "user", "content": "hi"}]
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": [True, None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]
WIRED = [
    {
        "id": "call_00000000",
        "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": [True, None]}},
    },
    {"id": "call_11111111", "function": {"index": 1, "name": "g", "arguments": {}}},
]


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"])})


@pytest.fixture
def post(session, url):
    """``await post(path, **fields)`` → the bytes of each line."""

    async def post(path: str, **fields):
        async with session.post(url + path, json={"model": "m", **fields}) as response:
            assert response.status == 200
            return (await response.read()).splitlines()

    return post


say_everything = everything(CALLS, "bye")


async def test_chat_streams_each_kind_in_its_place(post, backend):
    backend.script = say_everything

    lines = [json.loads(line) for line in await post(CHAT, messages=ASKED)]

    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "so on"},
        {"role": "assistant", "content": "", "tool_calls": WIRED},
        {"role": "assistant", "content": "bye"},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False] * 4 + [True]
    assert lines[-1]["done_reason"] == "stop"


async def test_chat_without_streaming_has_all_in_one_message(post, backend):
    backend.script = say_everything

    (line,) = await post(CHAT, messages=ASKED, stream=False)

    message = json.loads(line)["message"]
    assert message == {
        "role": "assistant",
        "content": "so onbye",
        "thinking": "hm",
        "tool_calls": WIRED,
    }
    assert list(message) == ["role", "content", "thinking", "tool_calls"]
    assert b'"arguments":{"b":1,"a":[true,null]}' in line  # in the model's order


async def test_generate_streams_thinking_beside_the_response(post, backend):
    backend.script = lambda job: job.start().part(Thought("hm")).send("so").end()

    lines = [json.loads(line) for line in await post(GENERATE, prompt="hi")]

    sent = [(line["response"], line.get("thinking")) for line in lines]
    assert sent == [("", "hm"), ("so", None), ("", None)]
    assert list(lines[0]) == ["model", "created_at", "response", "thinking", "done"]


async def test_generate_without_streaming_joins_them(post, backend):
    backend.script = say_everything

    (line,) = await post(GENERATE, prompt="hi", stream=False)

    whole = json.loads(line)
    assert (whole["response"], whole["thinking"]) == ("so onbye", "hm")
    assert whole["tool_calls"] == WIRED


@pytest.mark.parametrize("stream", [True, False])
async def test_a_rendered_prompt_is_one_object(post, backend, stream):
    backend.script = lambda job: job.start().send("<s>hi").end()

    (generated,) = await post(GENERATE, prompt="hi", _debug_render_only=True, stream=stream)
    (chatted,) = await post(CHAT, messages=ASKED, _debug_render_only=True, stream=stream)

    shown = {"_debug_info": {"rendered_template": "<s>hi"}}
    generated, chatted = json.loads(generated), json.loads(chatted)
    assert generated.pop("created_at")
    assert chatted.pop("created_at")
    assert generated == {"model": "m", "response": "", "done": False, **shown}
    assert chatted == {
        "model": "m",
        "message": {"role": "", "content": ""},
        "done": False,
        **shown,
    }
    assert (await backend.job()).job.task.renders_only
    assert (await backend.job()).job.task.renders_only


async def test_rendering_an_empty_prompt_loads_the_model(post, backend):
    backend.script = lambda job: job.start().end("load")

    (line,) = await post(CHAT, messages=[], _debug_render_only=True)

    assert json.loads(line)["done_reason"] == "load"


async def test_a_restarted_answer_has_no_thinking_of_the_first_attempt(post, backend):
    def play(job):
        job.start().part(Thought("first"))
        assert job.restart()
        job.part(Thought("second")).send("so").end()

    backend.script = play

    (line,) = await post(CHAT, messages=ASKED, stream=False)

    assert json.loads(line)["message"]["thinking"] == "second"
