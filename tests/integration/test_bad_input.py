"""What is wrong with a request, a file or the machine is said clearly, and the server goes on."""

import hashlib
import os
import socket
import subprocess
import sys

import httpx
import pytest

from ollama_async.native.tiny_model import write_tiny_model

SCRIPTS = {"story": {"tokens": ["hi "], "repeat": True}}


@pytest.fixture
def server(start_server):
    return start_server(scripts=SCRIPTS)


@pytest.fixture
def post(server):
    def send(path, **request):
        return httpx.post(f"{server.url}{path}", timeout=30, **request)

    return send


def store_blob(server, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    answer = httpx.post(f"{server.url}/api/blobs/{digest}", content=data, timeout=30)
    assert answer.status_code in {200, 201}, answer.text
    return digest


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"", 400, "missing request body"),
        (b"x", 400, "invalid character 'x' looking for beginning of value"),
        (b"{", 400, "unexpected EOF"),
        (b'{"model": "nobody", "prompt": "x"}', 404, "model 'nobody' not found"),
        (b'{"prompt": "x"}', 404, "model '' not found"),
        (
            b'{"model": 1}',
            400,
            (
                "json: cannot unmarshal number into Go struct field "
                "GenerateRequest.model of type string"
            ),
        ),
    ],
)
def test_bad_bodies_get_ollamas_words(post, content, status, error):
    answer = post("/api/generate", content=content)

    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_names_of_fields_are_read_without_regard_to_case(post):
    answer = post(
        "/api/generate",
        content=b'{"MODEL":"story","Prompt":"x","STREAM":false,"nonsense":1,'
        b'"system":null,"options":{"num_predict":1}} trailing',
    )

    assert answer.json()["response"] == "hi "


def test_options_out_of_range_are_refused(post):
    answer = post("/api/generate", json={"model": "story", "prompt": "x", "options": {"top_k": -5}})

    assert answer.status_code == 400
    assert "top_k" in answer.json()["error"]


def test_options_of_the_wrong_type_are_refused_in_ollamas_words(post):
    answer = post(
        "/api/generate", json={"model": "story", "prompt": "x", "options": {"top_k": "many"}}
    )

    assert answer.status_code == 500
    assert answer.json()["error"] == 'option "top_k" must be of type integer'


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/api/generate", "GET", 405), ("/api/tags", "POST", 405)],
)
def test_unknown_paths_and_methods_answer_as_gin_does(server, path, method, status):
    answer = httpx.request(method, f"{server.url}{path}")

    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")


def hostile_files(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    good = path.read_bytes()
    yield "garbage", b"\x00\xff" * 500
    yield "empty", b""
    yield "magic only", b"GGUF"
    yield "truncated header", good[:200]
    yield "truncated data", good[:-1]
    yield "huge tensor count", good[:8] + (2**62).to_bytes(8, "little") + good[16:]
    yield "huge key count", good[:16] + (2**62).to_bytes(8, "little") + good[24:]
    yield "huge string", good[:24] + (2**40).to_bytes(8, "little") + good[32:]


def test_hostile_files_are_refused_before_native_code_sees_them(server, post, tmp_path):
    for what, data in hostile_files(tmp_path):
        digest = store_blob(server, data)
        answer = post(
            "/api/create", json={"model": "bad", "files": {"m.gguf": digest}, "stream": False}
        )

        assert answer.status_code == 400, (what, answer.text)
        assert answer.json()["error"], what

    assert server.workers() == []
    names = [model["name"] for model in httpx.get(f"{server.url}/api/tags").json()["models"]]
    assert names == ["story:latest"]


@pytest.mark.engine
@pytest.mark.slow
def test_a_valid_file_that_the_library_cannot_run_says_so(server, post, tmp_path):
    path = tmp_path / "alien.gguf"
    write_tiny_model(path, architecture="alien")
    digest = store_blob(server, path.read_bytes())
    created = post(
        "/api/create", json={"model": "alien", "files": {"a.gguf": digest}, "stream": False}
    )
    assert created.status_code == 200, created.text

    answer = post("/api/generate", json={"model": "alien", "prompt": "x"})

    assert answer.status_code == 500
    assert "alien" in answer.json()["error"]
    assert post("/api/generate", json={"model": "story", "prompt": "x"}).status_code == 200


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ raise_exception('no such role') }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_hostile_template_costs_only_its_request(start_server, template):
    script = {**SCRIPTS["story"], "slots": 4}
    server = start_server(scripts={"bad": {**script, "template": template}, "story": script})

    answer = httpx.post(
        f"{server.url}/api/chat",
        json={"model": "bad", "messages": [{"role": "user", "content": "x"}]},
        timeout=30,
    )
    after = httpx.post(
        f"{server.url}/api/generate",
        json={"model": "bad", "prompt": "x", "raw": True, "options": {"num_predict": 1}},
        timeout=30,
    )

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert after.status_code == 200


def test_a_port_in_use_is_said_plainly(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    second = subprocess.run(
        [sys.executable, "-P", "-m", "ollama_async.cli.main", "serve"],
        env={**server.environment, "OLLAMA_HOST": f"{host}:{port}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert second.returncode == 1
    assert "address already in use" in second.stderr
    assert port in second.stderr
    assert "Traceback" not in second.stderr


def test_a_store_that_cannot_be_written_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ollama_async.cli.main", "serve"],
        env={
            **os.environ,
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": str(tmp_path / "file" / "models"),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr
