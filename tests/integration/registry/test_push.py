"""Pushing to a real registry through a real server: created, pushed, deleted, pulled back."""

import json

import httpx
import pytest

pytestmark = pytest.mark.slow
DEADLINE_S = 50.0


@pytest.fixture
def server(start_server):
    return start_server()


def create(server, name, path, digest, **fields):
    data = path.read_bytes()
    url = f"{server.url}/api/blobs/{digest(data)}"
    httpx.post(url, content=data, timeout=DEADLINE_S).raise_for_status()
    asked = {"model": name, "files": {"m.gguf": digest(data)}, "stream": False, **fields}
    httpx.post(f"{server.url}/api/create", json=asked, timeout=DEADLINE_S).raise_for_status()


def digest_in_tags(server, name):
    models = httpx.get(f"{server.url}/api/tags").json()["models"]
    return {model["name"]: model["digest"] for model in models}.get(name)


def test_a_model_comes_back_as_it_was_created(registry, server, tiny_model, digest):
    name = f"{registry.host}/there/and-back:v1"
    create(server, name, tiny_model, digest, system="Be kind.", license="free")
    before = digest_in_tags(server, name)

    done = server.command("push", name, "--insecure")
    assert done.stdout == f"\nYou can find your model at:\n\n\t{name}\n"
    lines = done.stderr.splitlines()
    assert (lines[0], lines[-2:]) == ("retrieving manifest", ["pushing manifest", "success"])
    assert f"pushing {digest(tiny_model.read_bytes())[7:19]}" in lines
    url = f"{registry.url}/v2/there/and-back/manifests/v1"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    assert digest(httpx.get(url, headers=accept).content) == f"sha256:{before}"

    server.command("rm", name)
    assert digest_in_tags(server, name) is None
    server.command("pull", name, "--insecure")
    assert digest_in_tags(server, name) == before


def test_the_answer_is_a_stream_or_its_last_line(registry, server, tiny_model, digest):
    create(server, f"{registry.host}/there/once", tiny_model, digest)
    asked = {"name": f"{registry.host}/There/Once", "insecure": True}
    answer = httpx.post(f"{server.url}/api/push", json=asked, timeout=DEADLINE_S)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"status": "retrieving manifest"}
    assert lines[-2:] == [{"status": "pushing manifest"}, {"status": "success"}]

    answer = httpx.post(
        f"{server.url}/api/push", json=asked | {"stream": False}, timeout=DEADLINE_S
    )
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    asked = {"name": "me/nothing", "stream": False}
    answer = httpx.post(f"{server.url}/api/push", json=asked, timeout=DEADLINE_S)
    assert answer.status_code == 500
    assert answer.json()["error"].endswith("/me/nothing/latest: no such file or directory")

    for asked, status, error in (
        ({}, 400, "model is required"),
        ({"model": "a/b/c/d e"}, 400, "invalid model name"),
        ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        (
            {"model": 3},
            400,
            "json: cannot unmarshal number into Go struct field PushRequest.model of type string",
        ),
    ):
        answer = httpx.post(f"{server.url}/api/push", json=asked, timeout=DEADLINE_S)
        assert (answer.status_code, answer.json()) == (status, {"error": error})
