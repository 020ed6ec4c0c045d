"""A real GGUF through the whole road: import, list, generate, chat, stop, delete."""

import asyncio
import hashlib
import json

import httpx
import ollama
import pytest

from ollama_async.engine.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}"
    "{% endfor %}[assistant]"
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_model(path, quantization="Q8_0", context=512, chat_template=TEMPLATE)
    return path


@pytest.fixture(scope="module")
def short_gguf(tmp_path_factory):
    """Its answers end, after ten contexts."""
    path = tmp_path_factory.mktemp("gguf") / "short.gguf"
    write_tiny_model(path, quantization="Q8_0", context=64, chat_template=TEMPLATE)
    return path


@pytest.fixture
def server(start_server, gguf, tmp_path):
    server = start_server()
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(
        f'# a comment\nFROM {gguf}\nPARAMETER temperature 0\nPARAMETER stop "%%"\n'
        "PARAMETER num_predict 200\n"
        'SYSTEM """You are\nvery brief"""\n'
    )
    created = server.command("create", "mine", "-f", str(modelfile))
    assert "success" in created.stdout + created.stderr
    return server


@pytest.fixture
def client(server):
    client = ollama.Client(host=server.url)
    yield client
    client._client.close()


GREEDY = {"num_predict": 12, "temperature": 0, "seed": 7}


def test_a_created_model_is_stored_as_ollama_stores_it(server, gguf, tmp_path):
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    store = tmp_path / "models"
    manifest_path = store / "manifests/registry.ollama.ai/library/mine/latest"
    manifest = json.loads(manifest_path.read_bytes())

    assert (store / f"blobs/sha256-{digest}").read_bytes() == gguf.read_bytes()
    layers = {layer["mediaType"].rpartition(".")[2]: layer for layer in manifest["layers"]}
    assert layers["model"]["digest"] == f"sha256:{digest}"
    params = json.loads(
        (store / "blobs" / layers["params"]["digest"].replace(":", "-")).read_bytes()
    )
    assert params == {"temperature": 0, "stop": ["%%"], "num_predict": 200}
    assert (store / "blobs" / layers["system"]["digest"].replace(":", "-")).read_text() == (
        "You are\nvery brief"
    )
    (listed,) = httpx.get(f"{server.url}/api/tags").json()["models"]
    assert listed["digest"] == hashlib.sha256(manifest_path.read_bytes()).hexdigest()
    assert listed["details"]["family"] == "llama"
    assert listed["details"]["quantization_level"] == "Q8_0"


def test_the_same_seed_and_prompt_give_the_same_text(client):
    options = {"num_predict": 24, "temperature": 1.5, "seed": 42}

    texts = {client.generate("mine", "Hello there", options=options).response for _ in range(3)}
    other = client.generate("mine", "Hello there", options={**options, "seed": 43}).response

    assert len(texts) == 1
    assert other not in texts


def test_streamed_and_whole_answers_agree(client):
    whole = client.generate("mine", "Hello", options=GREEDY)
    parts = list(client.generate("mine", "Hello", options=GREEDY, stream=True))

    assert "".join(part.response for part in parts) == whole.response
    assert whole.eval_count == parts[-1].eval_count == 12
    assert whole.done_reason == "length"


def test_the_chat_template_is_used_and_the_bos_is_not_doubled(client):
    chat = client.chat("mine", [{"role": "user", "content": "Hi"}], options=GREEDY)
    raw = client.generate(
        "mine", "[system]You are\nvery brief[user]Hi[assistant]", raw=True, options=GREEDY
    )

    assert chat.prompt_eval_count == raw.prompt_eval_count
    assert chat.message.content == raw.response


def test_context_continues_a_conversation(client):
    first = client.generate("mine", "Hello", options=GREEDY)
    second = client.generate("mine", "more", context=first.context, options=GREEDY)

    assert len(second.context) > len(first.context)
    assert list(second.context[: len(first.context)]) == list(first.context)


def test_a_long_answer_goes_on_beyond_the_context(client):
    answer = client.generate("mine", "Go", options={**GREEDY, "num_ctx": 64, "num_predict": 150})

    assert (answer.eval_count, answer.done_reason) == (150, "length")


def test_without_shift_the_context_is_the_end(server, client):
    assert client.generate("mine", "warm", options={"num_predict": 1}).done
    answer = httpx.post(
        f"{server.url}/api/generate",
        json={
            "model": "mine",
            "prompt": "Go",
            "stream": False,
            "shift": False,
            "options": {**GREEDY, "num_ctx": 64, "num_predict": 150},
        },
        timeout=30,
    ).json()

    assert answer["done_reason"] == "length"
    assert answer["prompt_eval_count"] + answer["eval_count"] <= 65


def test_a_smaller_context_is_no_reason_to_reload(server, client):
    client.generate("mine", "Go", options={"num_predict": 1, "num_ctx": 256})
    (before,) = server.workers()
    client.generate("mine", "Go", options={"num_predict": 1, "num_ctx": 128})
    (after,) = server.workers()

    assert before.pid == after.pid


async def test_many_requests_at_once_give_what_each_gives_alone(server):
    http = httpx.AsyncClient(base_url=server.url, timeout=60)

    async def ask(prompt: str) -> str:
        body = {"model": "mine", "prompt": prompt, "stream": False, "options": GREEDY}
        return (await http.post("/api/generate", json=body)).json()["response"]

    prompts = [f"number {n} and " + "many words " * n for n in range(8)]
    async with http:
        alone = [await ask(prompt) for prompt in prompts]
        together = await asyncio.gather(*map(ask, prompts))

    assert len(set(alone)) > 1
    assert together == alone


def test_the_command_line_lists_runs_stops_and_removes(server):
    listed = server.command("list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert listed[1].startswith("mine:latest")

    ran = server.command("run", "mine", "Hello", "--verbose")
    assert ran.stdout.strip()
    assert "eval rate:" in ran.stderr
    running = server.command("ps").stdout.splitlines()
    assert running[0].split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert "100% CPU" in running[1]

    server.command("stop", "mine")
    server.wait_until(lambda: not server.workers(), "stopped the worker")
    assert "deleted 'mine'" in server.command("rm", "mine").stdout
    assert server.command("list").stdout.splitlines()[1:] == []


def test_the_official_client_creates_from_a_model_and_deletes(client):
    created = client.create("brief", from_="mine", parameters={"num_predict": 3}, system="Hi")
    answer = client.generate("brief", "Hello")
    client.delete("brief")

    assert created.status == "success"
    assert (answer.eval_count, answer.done_reason) == (3, "length")
    assert [model.model for model in client.list().models] == ["mine:latest"]
    with pytest.raises(ollama.ResponseError, match="model 'brief' not found"):
        client.delete("brief")


def test_a_path_can_be_run_without_creating_a_model(server, short_gguf):
    ran = server.command("run", str(short_gguf), "Hello")

    assert ran.stdout.strip()
    assert any(line.startswith("file-") for line in server.command("list").stdout.splitlines())


def test_stdin_is_put_before_the_prompt(server):
    assert server.command("run", "mine", "Hello", text="some text").stdout.strip()
