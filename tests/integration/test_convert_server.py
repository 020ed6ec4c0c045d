"""From a published directory to answers: the command line, the server, the engine."""

import shutil
from pathlib import Path

import httpx
import pytest

DEADLINE_S = 30
FIXTURES = Path(__file__).parents[1] / "fixtures" / "convert"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def server(start_server):
    return start_server()


def created(server, tmp_path, name, *flags):
    shutil.copytree(FIXTURES / name, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "Modelfile").write_text(f"FROM ./{name}\nPARAMETER num_predict 5\n")
    server.command("create", name, "-f", str(tmp_path / "Modelfile"), *flags)


def test_a_chat_model_answers(server, tmp_path):
    created(server, tmp_path, "qwen2")
    turn = {"role": "user", "content": "hello"}
    request = {"model": "qwen2", "messages": [turn], "stream": False}
    answer = httpx.post(f"{server.url}/api/chat", json=request, timeout=DEADLINE_S).json()
    assert answer["done"], answer
    assert answer["eval_count"] > 0
    shown = httpx.post(f"{server.url}/api/show", json={"model": "qwen2"}).json()
    assert shown["details"]["quantization_level"] == "BF16"
    assert shown["model_info"]["qwen2.rope.scaling.type"] == "yarn"
    assert "completion" in shown["capabilities"]


def test_an_embedding_model_is_recognized(server, tmp_path):
    created(server, tmp_path, "bert")
    shown = httpx.post(f"{server.url}/api/show", json={"model": "bert"}).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.pooling_type"] == 1


def test_a_directory_is_quantized_on_the_way(server, tmp_path):
    created(server, tmp_path, "llama", "-q", "q8_0")
    shown = httpx.post(f"{server.url}/api/show", json={"model": "llama"}).json()
    assert shown["details"]["quantization_level"] == "Q8_0"


def test_an_unsupported_model_is_rejected_with_the_reason(server, tmp_path):
    shutil.copytree(FIXTURES / "llama", tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    (tmp_path / "Modelfile").write_text("FROM ./llama\n")
    words = ("create", "new", "-f", str(tmp_path / "Modelfile"))
    done = server.command(*words, check=False)
    assert done.returncode == 1
    assert "MambaForCausalLM; supported are" in done.stderr
