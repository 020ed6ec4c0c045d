"""Models whose metadata makes little of the memory that they take, and workers that take more than
was planned: refused or planned right, and the gateway lives.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import psutil
import pytest

from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import summarize
from ollama_async.hw import placement
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines import llama_cpp
from ollama_async.workers.load_spec import LoadSpec
from tests.integration.conftest import LONG_WAIT_S

CAPTURE = Path(__file__).parent / "capture"
MIB = 1 << 20
LONGEST = 1 << 24
"""The most that may be asked for."""

SHAPES = {
    "plain": {},
    "looks ahead": {"metadata": {"llama.attention.causal": False}},
    "attends rarely": {"metadata": {"llama.full_attention_interval": 64}},
    "large vocabulary": {"vocab": 20_000, "quantization": "Q8_0"},
    "wide": {"feed_forward": 4096, "quantization": "Q8_0"},
    "many heads": {"width": 256, "heads": 32, "kv_heads": 32},
    "many layers": {"layers": 24},
    "long heads": {"width": 256, "heads": 2, "kv_heads": 1},
    "takes a terabyte": {
        "metadata": {"llama.attention.causal": False},
        "width": 256,
        "layers": 64,
        "kv_heads": 4,
        "quantization": "Q4_0",
    },
}
LOADS = [
    ("plain", {"num_ctx": 4096, "slots": 32}),
    ("plain", {"num_ctx": 4, "slots": 1}),
    ("plain", {"num_ctx": 131_072, "slots": 1}),
    ("long heads", {"num_ctx": 8192, "slots": 2, "cache_type": "q8_0"}),
    ("looks ahead", {"num_ctx": 131_072, "slots": 4}),
    ("attends rarely", {"num_ctx": 131_072, "slots": 4}),
    ("large vocabulary", {"num_ctx": 4096, "slots": 32}),
    ("wide", {"num_ctx": 4096, "slots": 1}),
    ("wide", {"num_ctx": 4096, "slots": 2, "batch_size": 8192}),
    ("many heads", {"num_ctx": 8192, "slots": 1, "flash_attention": "off"}),
    ("many heads", {"num_ctx": 8192, "slots": 4}),
    ("many layers", {"num_ctx": 16_384, "slots": 2}),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A path for each shape; written when it is asked for."""
    folder = tmp_path_factory.mktemp("shapes")

    def path(name):
        file = folder / f"{name}.gguf"
        return file if file.exists() else write_tiny_model(file, context=1 << 30, **SHAPES[name])

    return path


@pytest.mark.parametrize(("shape", "options"), LOADS)
def test_the_estimate_is_no_less_than_what_the_library_takes_and_not_much_more(
    models, shape, options
):
    spec = LoadSpec(engine="llama_cpp", model=str(models(shape)), threads=1, **options)
    facts = summarize(read_header(models(shape)))
    estimate = placement.estimate_memory(
        placement.LoadParameters(
            weights_bytes=facts.weights_bytes,
            cache_bytes_per_token=facts.cache_bytes_per_token,
            cache_type=spec.cache_type,
            num_ctx=spec.num_ctx,
            batch_size=spec.batch_size,
            is_fused=spec.flash_attention != "off",
            on_cpu=True,
            shape=facts.shape,
        ),
        slots=spec.slots,
    )
    engine = llama_cpp.load(spec, lambda _: None)
    taken = engine.facts
    engine.close()
    total = taken.weights_bytes + taken.cache_bytes + taken.compute_bytes
    assert estimate.cache_bytes >= taken.cache_bytes
    assert estimate.compute_bytes >= taken.compute_bytes
    assert total <= estimate.total_bytes <= 1.5 * total + 128 * MIB


@pytest.mark.parametrize("shape", ["looks ahead", "attends rarely"])
def test_what_a_file_says_of_its_attention_does_not_hide_its_cache(models, shape):
    liar, honest = (summarize(read_header(models(name))) for name in (shape, "plain"))
    assert liar.cache_bytes_per_token == honest.cache_bytes_per_token > 0


def create(server, name, path):
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    httpx.post(f"{server.url}/api/blobs/{digest}", content=data).raise_for_status()
    request = {"model": name, "files": {"m.gguf": digest}, "stream": False}
    httpx.post(f"{server.url}/api/create", json=request, timeout=LONG_WAIT_S).raise_for_status()


def generate(server, name, **options):
    options = {"num_predict": 4, **options}
    request = {"model": name, "prompt": "the", "stream": False, "options": options}
    return httpx.post(f"{server.url}/api/generate", json=request, timeout=LONG_WAIT_S)


@pytest.mark.slow
def test_a_model_that_hides_its_cache_is_refused_what_no_machine_has(start_server, models):
    server = start_server(OLLAMA_CONTEXT_LENGTH="256", OLLAMA_NUM_PARALLEL="1")
    create(server, "liar", models("takes a terabyte"))
    for _ in range(2):
        answer = generate(server, "liar", num_ctx=LONGEST)
        assert "requires more system memory" in answer.json()["error"]
    assert server.workers() == [], "nothing was tried"
    answer = generate(server, "liar")
    assert (answer.status_code, answer.json()["eval_count"]) == (200, 4)


@pytest.mark.slow
def test_a_worker_at_the_limit_of_its_memory_fails_its_request_with_a_reason(
    start_server, models, tmp_path
):
    order = tmp_path / "memory"
    order.touch()
    server = start_server(PYTHONPATH=str(CAPTURE), OLLAMA_ASYNC_TEST_CAPTURE=str(order))
    create(server, "m", models("plain"))
    answer = generate(server, "m", num_ctx=1 << 20)
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert re.search("not enough memory for a (context|KV cache) of 1048576 tokens", error)
    assert server.log.count("m:latest: loading") == 1, "it is not tried again and again"
    order.unlink()
    assert generate(server, "m").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["bells", "log"])
def test_a_captured_worker_leaves_the_server_to_others(start_server, models, tmp_path, attack):
    order = tmp_path / attack
    order.touch()
    server = start_server(PYTHONPATH=str(CAPTURE), OLLAMA_ASYNC_TEST_CAPTURE=str(order))
    create(server, "m", models("plain"))
    for _ in range(3):
        generate(server, "m")
        assert httpx.get(f"{server.url}/api/version", timeout=LONG_WAIT_S).status_code == 200
    assert server.stop() == 0
    assert len(server.log) < 3 * MIB


@pytest.mark.slow
def test_a_loaded_worker_is_confined_and_knows_no_secrets(start_server, models):
    server = start_server(HF_TOKEN="hf_secret", https_proxy="http://me:secret@proxy.invalid")
    create(server, "m", models("plain"))
    assert generate(server, "m").status_code == 200
    (worker,) = server.workers()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "system calls: confined" in server.log or "there is no libseccomp" in server.log
    assert ("Seccomp:\t2" in status) == ("system calls: confined" in server.log)
    assert "secret" not in str(worker.environ())
    assert worker.rlimit(psutil.RLIMIT_DATA)[1] < 1 << 40
    targets = [str(link.readlink()) for link in Path(f"/proc/{worker.pid}/fd").iterdir()]
    assert not [target for target in targets if target.startswith("socket:")], targets
    store = server.environment["OLLAMA_MODELS"]
    assert [t for t in targets if t.startswith(store) and "/blobs/sha256-" not in t] == []
