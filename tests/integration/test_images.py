"""Images and recordings through a real server: creating such models, every API, hostile files."""

import asyncio
import base64
import json
import random
from pathlib import Path

import httpx
import pytest

from tests.media_files import image_file, mp3_file, noise, photo, raw_wav_file, tone, wav_file
from tests.tiny_projectors import write_vision_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "convert" / "gemma3-vision"
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "[assistant]"
)
MODELFILE = (
    "FROM ./model.gguf\nFROM ./mmproj.gguf\nPARAMETER temperature 0\nPARAMETER num_predict 6\n"
)


@pytest.fixture
def server(start_server, tmp_path):
    """With the models ``seer`` and ``listener``."""
    server = start_server()
    for name, kind in (("seer", "gemma3"), ("listener", "ultravox")):
        folder = tmp_path / name
        folder.mkdir()
        write_vision_model(folder, kind, chat_template=TEMPLATE, context=4096)
        (folder / "Modelfile").write_text(MODELFILE)
        created = server.command("create", name, "-f", str(folder / "Modelfile"))
        assert "success" in created.stdout + created.stderr
    return server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def encoded(data):
    return base64.b64encode(data).decode()


def asked(text, *files, model="seer", **fields):
    message = {"role": "user", "content": text, "images": [encoded(file) for file in files]}
    return {"model": model, "messages": [message], "stream": False, **fields}


def test_a_model_of_two_files(client):
    shown = client.post("/api/show", json={"model": "seer"}).json()
    assert shown["capabilities"] == ["completion", "vision"]
    assert shown["projector_info"]["clip.projector_type"] == "gemma3"
    assert shown["modelfile"].count("\nFROM ") == 2
    assert "audio" in client.post("/api/show", json={"model": "listener"}).json()["capabilities"]

    answer = client.post("/api/chat", json=asked("what is this", photo())).json()
    assert answer["message"]["content"]
    (loaded,) = client.get("/api/ps").json()["models"]
    assert loaded["context_length"] >= 2048


def test_published_weights_with_an_encoder_make_two_files(client, server, tmp_path):
    (tmp_path / "Modelfile").write_text(f"FROM {PUBLISHED}\nPARAMETER num_predict 4\n")
    created = server.command("create", "gemma", "-f", str(tmp_path / "Modelfile"))
    assert "converting projector" in created.stdout + created.stderr
    shown = client.post("/api/show", json={"model": "gemma"}).json()
    assert shown["capabilities"][:2] == ["completion", "vision"]
    with_image = client.post("/api/chat", json=asked("what", photo(), model="gemma")).json()
    without = client.post("/api/chat", json=asked("what", model="gemma")).json()
    assert with_image["prompt_eval_count"] >= without["prompt_eval_count"] + 4


def test_every_api_takes_images(client):
    """The same question makes the same prompt, whatever carries the image."""
    small, large = photo(), image_file(noise(width=2200, height=1400))
    assert len(large) > 8 << 20
    for file in (small, large):
        url = f"data:image/png;base64,{encoded(file)}"
        source = {"type": "base64", "media_type": "image/png", "data": encoded(file)}
        text = {"type": "text", "text": "what"}
        parts = [{"type": "image_url", "image_url": {"url": url}}, text]
        items = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "what"}]
        answers = [
            client.post("/api/chat", json=asked("what", file)).json()["prompt_eval_count"],
            client.post(
                "/api/generate",
                json={
                    "model": "seer",
                    "prompt": "what",
                    "images": [encoded(file)],
                    "stream": False,
                },
            ).json()["prompt_eval_count"],
            client.post(
                "/v1/chat/completions",
                json={"model": "seer", "messages": [{"role": "user", "content": parts}]},
            ).json()["usage"]["prompt_tokens"],
            client.post(
                "/v1/responses",
                json={"model": "seer", "input": [{"role": "user", "content": items}]},
            ).json()["usage"]["input_tokens"],
        ]
        usage = client.post(
            "/v1/messages",
            json={
                "model": "seer",
                "max_tokens": 6,
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": source}, text]}
                ],
            },
        ).json()["usage"]
        answers.append(usage["input_tokens"] + usage.get("cache_read_input_tokens", 0))
        assert len(set(answers)) == 1, answers


def test_urls_are_not_fetched(client):
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}
    response = client.post(
        "/v1/chat/completions",
        json={"model": "seer", "messages": [{"role": "user", "content": [part]}]},
    )
    assert response.status_code == 400
    assert "not currently supported" in response.json()["error"]["message"]


def test_a_recording_is_transcribed(client):
    for file in (wav_file(tone(0.5)), mp3_file(20)):
        answer = client.post(
            "/v1/audio/transcriptions", data={"model": "listener"}, files={"file": file}
        )
        assert answer.status_code == 200
        assert answer.json()["text"]
    refused = client.post("/v1/audio/transcriptions", data={"model": "seer"}, files={"file": file})
    assert refused.status_code == 400
    assert "does not support audio" in refused.json()["error"]["message"]


def test_a_model_that_only_reads_refuses_images(client, server, tmp_path):
    (tmp_path / "seer" / "Modelfile").write_text("FROM ./model.gguf")
    server.command("create", "reader", "-f", str(tmp_path / "seer" / "Modelfile"))
    answer = client.post("/api/chat", json=asked("what", photo(), model="reader"))
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("reader:latest does not support vision")


def hostile_files():
    """Damaged, lying and wrong files of all kinds."""
    chance = random.Random(7)
    whole = [
        *(image_file(noise(), form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP")),
        wav_file(tone(0.2)),
        mp3_file(10),
    ]
    for file in whole:
        yield file[: len(file) // 2]
        for _ in range(12):
            changed = bytearray(file)
            for _ in range(chance.randrange(1, 20)):
                changed[chance.randrange(min(len(changed), 200))] = chance.randrange(256)
            yield bytes(changed)
    yield from (
        b"",
        b"\0" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"II*\0" + bytes(50),
    )
    yield raw_wav_file(bytes(100), claimed=2**32 - 1)
    yield b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0" + bytes(99)
    yield b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2L\1\0;"


def test_no_file_kills_a_worker(client, server):
    for model, good in (("seer", photo()), ("listener", wav_file(tone(0.2)))):
        assert client.post("/api/chat", json=asked("what", good, model=model)).status_code == 200
        pids = {worker.pid for worker in server.workers()}
        for file in hostile_files():
            answer = client.post("/api/chat", json=asked("what", file, model=model))
            assert answer.status_code in {200, 400}, (file[:40], answer.text)
            if answer.status_code == 400:
                assert "Traceback" not in answer.json()["error"]
        assert client.post("/api/chat", json=asked("what", good, model=model)).status_code == 200
        assert pids <= {worker.pid for worker in server.workers()}
    assert "Traceback" not in server.log


async def test_streams_go_on_beside_images(server):
    """The tokens of a long answer come while others send images."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        body = {
            "model": "seer",
            "prompt": "the people",
            "options": {"num_predict": 400},
        }

        async def stream():
            async with client.stream("POST", "/api/generate", json=body) as response:
                return [json.loads(line) async for line in response.aiter_lines()]

        async def look(seed):
            return await client.post(
                "/api/chat", json=asked("what", photo(seed), photo(seed + 100))
            )

        lines, *answers = await asyncio.gather(stream(), *map(look, range(12)))
    assert lines[-1]["done"]
    assert lines[-1]["eval_count"] == 400
    assert all(answer.status_code == 200 for answer in answers)
    counts = {answer.json()["prompt_eval_count"] for answer in answers}
    assert len(counts) == 1


def test_an_image_turn_is_reused(client):
    """OpenAI's usage says how much."""
    url = f"data:image/png;base64,{encoded(image_file(noise(3)))}"
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "what is this"}]}]
    ask = {"model": "seer", "messages": messages}
    answer = client.post("/v1/chat/completions", json=ask).json()
    messages += [answer["choices"][0]["message"], {"role": "user", "content": "and why"}]
    usage = client.post("/v1/chat/completions", json=ask).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 18
