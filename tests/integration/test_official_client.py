"""The official Python client works against the real server."""

import re

import ollama
import pytest

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
SCRIPTS = {
    "story": {"tokens": ["Once ", "upon ", "a ", "time."], "template": TEMPLATE},
    "other": {"tokens": ["x"]},
}


@pytest.fixture
def server(start_server):
    return start_server(scripts=SCRIPTS)


@pytest.fixture
def client(server):
    client = ollama.Client(host=server.url)
    yield client
    client._client.close()


@pytest.fixture
async def async_client(server):
    client = ollama.AsyncClient(host=server.url)
    yield client
    await client._client.aclose()


def test_generate_answers_whole(client):
    answer = client.generate("story", "Tell me")

    assert answer.response == "Once upon a time."
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "stop", 5)
    assert answer.total_duration >= answer.load_duration > 0
    assert answer.prompt_eval_count > 0
    assert answer.context
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", answer.created_at)


def test_generate_streams(client):
    parts = list(client.generate("story", "Tell me", stream=True))

    assert "".join(part.response for part in parts) == "Once upon a time."
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == 5


def test_chat_answers_whole_and_streams(client):
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]

    whole = client.chat("story", messages)
    parts = list(client.chat("story", messages, stream=True))

    assert whole.message.content == "Once upon a time."
    assert whole.message.role == "assistant"
    assert "".join(part.message.content or "" for part in parts) == "Once upon a time."
    assert parts[-1].done_reason == "stop"


async def test_the_async_client_generates_and_chats(async_client):
    whole = await async_client.generate("story", "Tell me")
    streamed = [
        part.message.content or ""
        async for part in await async_client.chat(
            "story", [{"role": "user", "content": "Hi"}], stream=True
        )
    ]

    assert whole.response == "Once upon a time."
    assert "".join(streamed) == "Once upon a time."


def test_models_are_listed_run_and_unloaded(client):
    client.generate("story", keep_alive="10m")

    assert {model.model for model in client.list().models} == {"story:latest", "other:latest"}
    (running,) = client.ps().models
    assert (running.model, running.size_vram) == ("story:latest", 0)
    assert running.expires_at is not None

    client.generate("story", keep_alive=0)
    while client.ps().models:
        pass


def test_an_unknown_model_is_a_404_in_ollamas_words(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("nobody", "Hi")

    assert (caught.value.status_code, caught.value.error) == (404, "model 'nobody' not found")


async def test_the_async_client_may_leave_in_the_middle(async_client):
    stream = await async_client.generate(
        "story", "Tell me", stream=True, options={"num_predict": 2}
    )
    async for _ in stream:
        break
    await stream.aclose()

    assert (await async_client.generate("story", "again")).response == "Once upon a time."


@pytest.mark.engine
@pytest.mark.slow
async def test_a_real_model_streams_what_it_says_whole(demo_server):
    client = ollama.AsyncClient(host=demo_server.url)
    asked = [{"role": "user", "content": "Why is the sky blue?"}]
    whole = await client.chat("demo", asked)
    stream = await client.chat("demo", asked, stream=True)
    parts = [part.message.content async for part in stream]
    await client._client.aclose()

    assert "Rayleigh scattering" in whole.message.content
    assert "".join(parts) == whole.message.content
    assert len(parts) > 1
