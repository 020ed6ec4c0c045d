"""Pulling from a real registry: through a real server, and what it leaves on the disk."""

import json
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow
DEADLINE_S = 30.0


def pull_lines(server, name, **fields):
    """The NDJSON lines of a pull."""
    asked = {"model": name, "insecure": True, **fields}
    answer = httpx.post(f"{server.url}/api/pull", json=asked, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_pulled_model_is_the_one_that_was_pushed(registry, digest, start_server, tiny_model):
    data = tiny_model.read_bytes()
    manifest = registry.push("library/tiny", data, template="{{ .Prompt }}", license="free")
    server = start_server()
    name = f"{registry.host}/library/tiny"

    lines = pull_lines(server, name)

    texts = list(dict.fromkeys(line["status"] for line in lines))
    layers = [*json.loads(manifest)["layers"], json.loads(manifest)["config"]]
    assert texts == [
        "pulling manifest",
        *(f"pulling {layer['digest'][7:19]}" for layer in layers),
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    last = {line["digest"]: line for line in lines if "digest" in line}
    for layer in layers:
        assert last[layer["digest"]]["total"] == layer["size"]
        assert last[layer["digest"]]["completed"] == layer["size"]
    (model,) = [
        model
        for model in httpx.get(f"{server.url}/api/tags").json()["models"]
        if model["name"].startswith(registry.host)
    ]
    assert model["name"] == f"{name}:latest"
    assert model["digest"] == digest(manifest).removeprefix("sha256:")
    store = Path(server.environment["OLLAMA_MODELS"])
    assert (store / "blobs" / digest(data).replace(":", "-")).read_bytes() == data


def test_without_streaming_the_last_status_is_the_answer(registry, start_server, tiny_model):
    registry.push("library/once", tiny_model.read_bytes())
    server = start_server()
    asked = {"name": f"{registry.host}/library/once", "insecure": True, "stream": False}
    answer = httpx.post(f"{server.url}/api/pull", json=asked, timeout=DEADLINE_S)
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert answer.headers["Content-Type"] == "application/json"

    asked["name"] = f"{registry.host}/library/nothing"
    answer = httpx.post(f"{server.url}/api/pull", json=asked, timeout=DEADLINE_S)
    error = {"error": "pull model manifest: file does not exist"}
    assert (answer.status_code, answer.json()) == (500, error)


def test_a_model_that_does_not_exist_is_an_error_line(registry, start_server):
    assert pull_lines(start_server(), f"{registry.host}/library/nothing") == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({}, 400, "invalid model name"),
        ({"model": ""}, 400, "invalid model name"),
        ({"name": "a/b/c/d e"}, 400, "invalid model name"),
        ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        (
            {"model": 3},
            400,
            "json: cannot unmarshal number into Go struct field PullRequest.model of type string",
        ),
    ],
)
def test_what_is_no_request_is_refused_before_the_stream(start_server, asked, status, error):
    answer = httpx.post(f"{start_server().url}/api/pull", json=asked, timeout=DEADLINE_S)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.engine
def test_a_pulled_model_can_be_shown_used_and_deleted(registry, start_server, demo_model):
    registry.push("library/answers", demo_model.read_bytes(), params='{"temperature": 0}')
    server = start_server()
    name = f"{registry.host}/library/answers"
    assert pull_lines(server, name)[-1] == {"status": "success"}
    shown = httpx.post(f"{server.url}/api/show", json={"model": name}, timeout=DEADLINE_S).json()
    assert shown["details"]["family"] == "llama"
    asked = {"model": name, "prompt": "Why is the sky blue?", "stream": False}
    answer = httpx.post(f"{server.url}/api/generate", json=asked, timeout=DEADLINE_S).json()
    assert "Rayleigh scattering" in answer["response"]
    assert httpx.request("DELETE", f"{server.url}/api/delete", json={"model": name}).is_success
    blobs = Path(server.environment["OLLAMA_MODELS"]) / "blobs"
    layers = json.loads(registry.manifest("library/answers"))["layers"]
    assert not (blobs / layers[0]["digest"].replace(":", "-")).exists()


@pytest.mark.parametrize("kept", [0.5, 0.99999])
def test_a_broken_file_gets_no_name(registry, start_server, tiny_model, kept):
    data = tiny_model.read_bytes()
    registry.push("library/broken", data[: int(len(data) * kept)])
    server = start_server()
    name = f"{registry.host}/library/broken"

    lines = pull_lines(server, name)

    assert lines[-1]["error"].startswith(
        f"the pulled model '{name}:latest' is broken: invalid GGUF"
    )
    assert httpx.get(f"{server.url}/api/tags").json()["models"] == []
    assert httpx.post(f"{server.url}/api/show", json={"model": name}).status_code == 404
