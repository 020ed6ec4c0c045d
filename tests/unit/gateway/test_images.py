"""Images on their way through the gateway: they arrive as they are, in the messages of the task."""

from __future__ import annotations

import base64
import io
import json

import pytest

from ollama_async.core.scripted_models import Script
from ollama_async.store.catalog import Catalog

IMAGE = b"\x89PNG" + bytes(range(256))
LARGE = IMAGE * (9 << 20 >> 8)


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"seer": Script(capabilities=["vision"]), "m": Script()})


@pytest.fixture
def ask(session, url, backend):
    """``await ask(path, **body)`` → the answer's JSON, and the images of each message."""

    async def ask(path, **fields):
        backend.script = lambda job: job.start().send("ok").end()
        data = io.BytesIO(json.dumps({"model": "seer", **fields}).encode())
        async with session.post(url + path, data=data) as response:
            body = await response.json()
            assert response.status == 200, body
        prompt = (await backend.jobs.get()).job.task.prompt
        return body, [message.images for message in prompt.messages]

    return ask


def encoded(image):
    return base64.b64encode(image).decode()


@pytest.mark.parametrize("image", [IMAGE, LARGE], ids=["small", "large"])
async def test_images_arrive_whatever_carries_them(ask, image):
    data, url = encoded(image), f"data:image/png;base64,{encoded(image)}"
    text = {"type": "text", "text": "what"}
    messages = [{"role": "user", "content": "what", "images": [data, data]}]
    _, images = await ask("/api/chat", messages=messages, stream=False)
    assert images == [[image, image]]

    _, images = await ask("/api/generate", prompt="what", images=[data], stream=False)
    assert images == [[image]]
    raw = {"prompt": "what", "raw": True, "images": [data], "stream": False}
    _, images = await ask("/api/generate", **raw)
    assert images == [[image]]

    part = {"type": "image_url", "image_url": {"url": url}}
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    messages = [{"role": "user", "content": [part, text, sound]}]
    _, images = await ask("/v1/chat/completions", messages=messages)
    assert [each for message in images for each in message] == [image, image]

    items = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    _, images = await ask("/v1/responses", input=items)
    assert [each for message in images for each in message] == [image]


async def test_several_choices_share_their_images(ask, backend):
    url = f"data:image/png;base64,{encoded(LARGE)}"
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]
    _, images = await ask("/v1/chat/completions", messages=messages, n=2, seed=1)
    other = (await backend.jobs.get()).job.task.prompt
    assert images == [message.images for message in other.messages] == [[LARGE]]


async def test_a_later_response_has_the_images_of_earlier_ones(ask):
    url = f"data:image/png;base64,{encoded(IMAGE)}"
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    first, _ = await ask("/v1/responses", input=items)
    _, images = await ask("/v1/responses", input="and now", previous_response_id=first["id"])
    assert [each for message in images for each in message] == [IMAGE]


async def test_a_prompt_that_is_only_shown_has_the_number_of_images(ask):
    fields = {"stream": False, "_debug_render_only": True}
    images = [encoded(IMAGE)] * 2
    body, _ = await ask("/api/generate", prompt="what", images=images, **fields)
    assert body["_debug_info"] == {"rendered_template": "ok", "image_count": 2}
    messages = [{"role": "user", "content": "what", "images": images}, {"role": "user"}]
    body, _ = await ask("/api/chat", messages=messages, **fields)
    assert body["_debug_info"]["image_count"] == 2
    body, _ = await ask("/api/generate", prompt="what", **fields)
    assert body["_debug_info"] == {"rendered_template": "ok"}


async def test_images_without_a_prompt_only_load_the_model(session, url, backend):
    backend.script = lambda job: job.end("load")
    body = {"model": "seer", "images": [encoded(IMAGE)]}
    async with session.post(url + "/api/generate", json=body) as response:
        assert (await response.json())["done_reason"] == "load"
    assert (await backend.jobs.get()).job.task is None
