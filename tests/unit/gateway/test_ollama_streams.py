"""The bytes of Ollama's streams: the lines of ``tests/fixtures/streams``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction
from ollama_async.core.errors import WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

GOLDEN = Path(__file__).parents[2] / "fixtures" / "streams"
GENERATE = ("/api/generate", {"prompt": "hi"})
CHAT = ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]})
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": ["é", None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"])})


def say_thoughts_and_text(job):
    job.start()
    job.part(Thought("h"), Thought("m"))
    job.send('a "', "<b>&\n", "é😀\u2028")
    job.end(context=[1, 2, 3])


def say_calls(job):
    job.start().part(Thought("hm")).send("so ").part(*CALLS).send("bye").end()


def fail(job):
    job.start().send("so").fail(WorkerDied("the worker died"))


@pytest.mark.parametrize("is_streamed", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("name", "route", "script"),
    [
        ("ollama-generate", GENERATE, say_thoughts_and_text),
        ("ollama-chat", CHAT, say_calls),
        ("ollama-generate-error", GENERATE, fail),
        ("ollama-chat-error", CHAT, fail),
    ],
)
async def test_answers_have_these_bytes(session, url, backend, name, route, script, is_streamed):
    """Times, the server's own, are fixed; those of the worker are the fake's."""
    backend.script = script
    path, body = route
    async with session.post(
        url + path, json={"model": "m", "stream": is_streamed, **body}
    ) as response:
        data = await response.read()
        assert response.status == (500 if script is fail and not is_streamed else 200)

    data = re.sub(rb'("created_at":)"[^"]*"', rb'\1"T"', data)
    data = re.sub(rb'("total_duration":)\d+', rb"\g<1>9", data)
    golden = GOLDEN / f"{name}.{'ndjson' if is_streamed else 'json'}"
    assert data == golden.read_bytes()
