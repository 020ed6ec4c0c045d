"""``/v1/audio/transcriptions``: the form, the question to the model, the answers and refusals."""

# ruff: noqa: E501  # one refusal per line reads as a table
from __future__ import annotations

import io
import json

import aiohttp
import pytest

from ollama_async.core.errors import WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

PATH = "/v1/audio/transcriptions"
SOUND = b"RIFF\0\0\0\0WAVE" + bytes(range(256)) * 3


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(
        store,
        {
            "hears": Script(capabilities=["audio"]),
            "sees": Script(capabilities=["vision"]),
            "m": Script(),
        },
    )


@pytest.fixture
def post(session, url):
    """``await post(file=…, model=…)`` → the response and its text."""

    async def post(**fields):
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in {"model": "hears", "file": SOUND, **fields}.items():
            if value is None:
                continue
            filename = {"filename": "a.wav"} if name == "file" else {}
            content = io.BytesIO(value) if isinstance(value, bytes) else value
            form.add_field(name.replace("__", "[]"), content, **filename)
        async with session.post(url + PATH, data=form) as response:
            return response, await response.text()

    return post


@pytest.fixture
def send(session, url):
    """``await send(body, content_type)`` → the status and the error's message."""

    async def send(body, content_type="multipart/form-data; boundary=xx"):
        headers = {"Content-Type": content_type}
        async with session.post(url + PATH, data=body, headers=headers) as response:
            return response.status, json.loads(await response.text())["error"]["message"]

    return send


def answer(job):
    job.start().send(" Hello,", " world. ").end()


USAGE = {"type": "tokens", "input_tokens": 7, "output_tokens": 2, "total_tokens": 9}


@pytest.mark.parametrize("fields", [{}, {"response_format": "verbose_json"}])
async def test_an_answer_is_an_object_with_the_text(post, backend, fields):
    backend.script = answer

    response, text = await post(**fields)

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(text) == {"text": "Hello, world.", "usage": USAGE}


async def test_an_answer_may_be_plain_text(post, backend):
    backend.script = answer

    response, text = await post(response_format="text")

    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert text == "Hello, world.\n"


async def test_a_text_that_looks_like_json_is_still_text(post, backend):
    backend.script = lambda job: job.start().send("{}").end()

    response, text = await post(response_format="text")

    assert (response.content_type, text) == ("text/plain", "{}\n")


async def test_a_stream_has_deltas_and_the_whole(post, backend):
    backend.script = answer

    response, text = await post(stream="true")

    assert response.headers["Content-Type"] == "text/event-stream"
    events = [json.loads(event[6:]) for event in text.removesuffix("\n\n").split("\n\n")]
    assert "".join(event["delta"] for event in events[:-1]) == " Hello, world. "
    assert {event["type"] for event in events[:-1]} == {"transcript.text.delta"}
    done = {"text": " Hello, world. ", "usage": USAGE, "type": "transcript.text.done"}
    assert events[-1] == done


async def test_the_model_is_asked_what_is_said(post, backend):
    backend.script = answer

    await post(language="fr", prompt="Chapter two.", temperature="0.5")

    job = (await backend.jobs.get()).job
    system, question = job.task.prompt.messages
    assert "language is fr" in system.content
    assert "Chapter two." in system.content
    assert question.images == [SOUND]
    assert job.task.sampling.temperature == 0.5


async def test_a_recording_of_25_megabytes_arrives(post, backend):
    backend.script = answer
    sound = SOUND + bytes((25 << 20) - len(SOUND))

    response, _ = await post(file=sound)

    assert response.status == 200
    (arrived,) = (await backend.jobs.get()).job.task.prompt.messages[1].images
    assert len(arrived) == 25 << 20
    assert hash(arrived) == hash(sound)


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": None}, 400, "model is required"),
        ({"model": " "}, 400, "model is required"),
        ({"file": None}, 400, "file is required: http: no such file"),
        ({"file": b""}, 400, "audio file is empty"),
        ({"model": "sees"}, 400, "registry.ollama.ai/library/sees:latest does not support audio"),
        ({"model": "m"}, 400, "registry.ollama.ai/library/m:latest does not support audio"),
        ({"model": "none"}, 404, "model 'none' not found"),
        ({"response_format": "srt"}, 400, "response_format: 'srt' is not one of json, verbose_json, text: models give no times"),
        ({"temperature": "hot"}, 400, "Expected `float`, got `str` - at `$.temperature`"),
        ({"temperature": "3"}, 400, "temperature must be between 0 and 2"),
        ({"temperature": "nan"}, 400, "temperature must be between 0 and 2"),
        ({"stream": "maybe"}, 400, "Expected `bool`, got `str` - at `$.stream`"),
        ({"timestamp_granularities__": "word"}, 400, "timestamp_granularities is not supported"),
        ({"include__": "logprobs"}, 400, "include is not supported"),
    ],
)  # fmt: skip
async def test_refusals_are_openais(post, fields, status, message):
    response, text = await post(**fields)

    assert response.status == status
    assert json.loads(text)["error"]["message"] == message


async def test_a_larger_recording_is_refused(post):
    response, text = await post(file=bytes((25 << 20) + 1))

    assert response.status == 413
    assert "limit of 26214400 bytes" in json.loads(text)["error"]["message"]


async def test_errors_of_the_worker_are_openais(post, backend):
    backend.script = lambda job: job.fail(WorkerDied("gone"))

    response, text = await post()

    assert response.status == 500
    assert json.loads(text)["error"]["message"] == "gone"


def part(name, content=b"x", extra=b""):
    head = b'--xx\r\nContent-Disposition: form-data; name="' + name + b'"' + extra
    return head + b"\r\n\r\n" + content + b"\r\n"


WHOLE = part(b"model", b"hears") + part(b"file", SOUND) + b"--xx--\r\n"


@pytest.mark.parametrize("body", [WHOLE, b"\r\n" + WHOLE, WHOLE[:-2], WHOLE + b"epilogue"])
async def test_a_form_may_be_written_so(body, session, url, backend):
    backend.script = answer
    headers = {"Content-Type": 'Multipart/Form-Data; boundary="xx"; charset=utf-8'}

    async with session.post(url + PATH, data=body, headers=headers) as response:
        assert response.status == 200
    assert (await backend.jobs.get()).job.task.prompt.messages[1].images == [SOUND]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "the boundary is missing"),
        (b"--xx", "a part has no end"),
        (b"--xx\r\n", "a part has no end"),
        (part(b"model"), "a part has no end"),
        (b"--xx--", "model is required"),
        (part(b""), "a part has no name"),
        (b"--xx\r\n\r\nx\r\n--xx--", "a part has no name"),
        (part(b"model", extra=b"\r\nContent-Transfer-Encoding: base64") + b"--xx--", "without an encoding"),
        (part(b"model") * 65 + b"--xx--", "more than 64 parts"),
        (b"--xx\r\nA: " + b"a" * 9000 + b"\r\n\r\nx\r\n--xx--", "a part has no end"),
    ],
)  # fmt: skip
async def test_a_damaged_form_is_refused(send, body, message):
    status, text = await send(body)
    if body in {part(b"model"), part(b"")}:
        status, text = await send(body + b"--xx")
    assert status == 400
    assert message in text


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/json", "request Content-Type isn't multipart/form-data"),
        ("multipart/form-data", "no multipart boundary param in Content-Type"),
        ("multipart/form-data; boundary=", "no multipart boundary param in Content-Type"),
        ("multipart/form-data; boundary=" + "x" * 71, "no multipart boundary param"),
    ],
)
async def test_another_type_of_body_is_refused(send, content_type, message):
    status, text = await send(b"--xx--", content_type)
    assert status == 400
    assert message in text
