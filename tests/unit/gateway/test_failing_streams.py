"""The bytes of streams that end with an error, in each protocol's shape.

Those of Ollama and of OpenAI's chat are compared with the other streams of these.
"""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from ollama_async.core.errors import WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

GOLDEN = Path(__file__).parents[2] / "fixtures" / "streams"
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
ID = re.compile(rb"\b([a-z]+[-_])[0-9A-Za-z]{20,}")
TIME = re.compile(rb'("created(?:_at)?":)(?:\d+|"[^"]*")')


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["vision", "audio"])})


def recording():
    form = aiohttp.FormData({"model": "m", "stream": "true"})
    form.add_field("file", b"RIFF", filename="a.wav")
    return form


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("openai-completions-error.txt", "/v1/completions", {"prompt": "hi"}),
        ("openai-responses-error.txt", "/v1/responses", {"input": "hi"}),
        ("openai-transcriptions-error.txt", "/v1/audio/transcriptions", None),
        ("anthropic-error.txt", "/v1/messages", MESSAGES | {"max_tokens": 9}),
    ],
)
async def test_an_error_in_the_middle_has_these_bytes(session, url, backend, name, path, body):
    backend.script = lambda job: job.start().send("so").fail(WorkerDied("the worker died"))
    form = recording() if body is None else None
    fields = None if body is None else {"model": "m", "stream": True, **body}

    async with session.post(url + path, data=form, json=fields) as response:
        data = await response.read()
        assert response.status == 200

    data = TIME.sub(rb'\1"T"', ID.sub(rb"\g<1>0", data))
    assert data == (GOLDEN / name).read_bytes()
