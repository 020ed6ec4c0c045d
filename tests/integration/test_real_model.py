"""A real GGUF through the whole road: import, list, generate, chat, stop, delete.

It is the one in the package, so that what is said can be checked, not only that something is.
"""

import asyncio
import hashlib
import json

import httpx
import ollama
import pytest

from ollama_async.native.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SKY = "Why is the sky blue?"
REASON = "Rayleigh scattering"
MODELFILE = '''# a comment
FROM {}
PARAMETER temperature 0
PARAMETER stop "%%"
PARAMETER num_predict 200
SYSTEM """You are
very brief"""
'''
BOS_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}"
    "{% endfor %}[assistant]"
)
QUESTIONS = (
    SKY,
    "What is the capital of France?",
    "Why is the ocean salty?",
    "Tell me a joke",
    "What is machine learning?",
    "who are you",
    "what is llama",
    "Say this is a test",
    "Hi",
    "你好啊",
    "What is 12 + 7?",
    "What is 6 * 7?",
    "My name is Alice.",
    "My favourite colour is blue.",
    "What is my name?",
    "How do I list models?",
)


@pytest.fixture
def server(start_server, demo_model, tmp_path):
    """Its model ``mine`` is the one of the package, with a Modelfile around it."""
    server = start_server()
    create(server, "mine", demo_model, tmp_path)
    return server


@pytest.fixture
def endless(server, tmp_path):
    """A model of what the one in the package has not: answers without an end, and a BOS."""
    gguf = tmp_path / "endless.gguf"
    write_tiny_model(gguf, quantization="Q8_0", context=512, chat_template=BOS_TEMPLATE)
    create(server, "endless", gguf, tmp_path)
    return "endless"


def create(server, name, gguf, folder):
    modelfile = folder / f"{name}.modelfile"
    modelfile.write_text(MODELFILE.format(gguf))
    created = server.command("create", name, "-f", str(modelfile))
    assert "success" in created.stdout + created.stderr


@pytest.fixture
def client(server):
    client = ollama.Client(host=server.url)
    yield client
    client._client.close()


GREEDY = {"num_predict": 12, "temperature": 0, "seed": 7}


def test_a_created_model_is_stored_as_ollama_stores_it(server, demo_model, tmp_path):
    digest = hashlib.sha256(demo_model.read_bytes()).hexdigest()
    store = tmp_path / "models"
    manifest_path = store / "manifests/registry.ollama.ai/library/mine/latest"
    manifest = json.loads(manifest_path.read_bytes())

    assert (store / f"blobs/sha256-{digest}").read_bytes() == demo_model.read_bytes()
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
    def story(seed):
        options = {"num_predict": 24, "temperature": 1.5, "seed": seed}
        return client.generate("mine", "Once upon a time", raw=True, options=options).response

    assert story(42) == story(42) == story(42) != story(43)


def test_streamed_and_whole_answers_agree(client):
    whole = client.generate("mine", SKY)
    parts = list(client.generate("mine", SKY, stream=True))
    cut = client.generate("mine", SKY, options=GREEDY)

    assert REASON in whole.response
    assert len(parts) > 1  # a fast model is merged
    assert "".join(part.response for part in parts) == whole.response
    assert whole.eval_count == parts[-1].eval_count > cut.eval_count == 12
    assert (whole.done_reason, parts[-1].done_reason) == ("stop", "stop")
    assert whole.response.startswith(cut.response)
    assert cut.done_reason == "length"


def test_the_chat_template_is_used(client):
    chat = client.chat("mine", [{"role": "user", "content": SKY}], think=False)
    raw = client.generate(
        "mine",
        f"<|im_start|>system\nYou are\nvery brief<|im_end|>\n<|im_start|>user\n{SKY}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        raw=True,
    )

    assert REASON in chat.message.content
    assert chat.prompt_eval_count == raw.prompt_eval_count
    assert chat.message.content == raw.response


def test_the_bos_of_a_template_is_not_doubled(client, endless):
    chat = client.chat(endless, [{"role": "user", "content": "Hi"}], options=GREEDY)
    raw = client.generate(
        endless, "[system]You are\nvery brief[user]Hi[assistant]", raw=True, options=GREEDY
    )

    assert chat.prompt_eval_count == raw.prompt_eval_count
    assert chat.message.content == raw.response


def test_context_continues_a_conversation(client):
    first = client.generate("mine", "My name is Alice.")
    second = client.generate("mine", "What is my name?", context=first.context)

    assert "Alice" in second.response
    assert len(second.context) > len(first.context)
    assert list(second.context[: len(first.context)]) == list(first.context)


def test_a_chat_remembers_what_was_said_two_turns_before(client):
    messages = []
    for said in ("My name is Alice.", SKY, "What is my name?"):
        messages.append({"role": "user", "content": said})
        messages.append(client.chat("mine", messages).message)

    noted, explained, remembered = (message.content for message in messages[1::2])
    assert "Alice" in noted
    assert REASON in explained
    assert "Alice" in remembered


def test_a_long_answer_goes_on_beyond_the_context(client, endless):
    answer = client.generate(endless, "Go", options={**GREEDY, "num_ctx": 64, "num_predict": 150})

    assert (answer.eval_count, answer.done_reason) == (150, "length")


def test_without_shift_the_context_is_the_end(server, client, endless):
    assert client.generate(endless, "warm", options={"num_predict": 1}).done
    answer = httpx.post(
        f"{server.url}/api/generate",
        json={
            "model": endless,
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
    http = httpx.AsyncClient(base_url=server.url, timeout=50)

    async def ask(question: str) -> str:
        body = {"model": "mine", "prompt": question, "stream": False}
        return (await http.post("/api/generate", json=body)).raise_for_status().json()["response"]

    async with http:
        alone = [await ask(question) for question in QUESTIONS]
        together = await asyncio.gather(*map(ask, QUESTIONS))

    assert REASON in alone[0]
    assert len(set(alone)) > len(alone) / 2
    assert together == alone


def test_the_command_line_lists_runs_stops_and_removes(server):
    listed = server.command("list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert listed[1].startswith("mine:latest")

    ran = server.command("run", "mine", SKY, "--verbose")
    assert REASON in ran.stdout
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
    answer = client.generate("brief", SKY)
    client.delete("brief")

    assert created.status == "success"
    assert (answer.eval_count, answer.done_reason) == (3, "length")
    assert [model.model for model in client.list().models] == ["mine:latest"]
    with pytest.raises(ollama.ResponseError, match="model 'brief' not found"):
        client.delete("brief")


def test_a_path_can_be_run_without_creating_a_model(server, demo_model):
    ran = server.command("run", str(demo_model), SKY)

    assert REASON in ran.stdout
    assert any(line.startswith("file-") for line in server.command("list").stdout.splitlines())


def test_stdin_is_put_before_the_prompt(server):
    assert REASON in server.command("run", "mine", "Why?", text="The sky is blue.").stdout
