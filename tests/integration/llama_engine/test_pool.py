"""One pool of cells on our own kernels: what the library does is what the loop believes."""

import json
import subprocess
import sys

import pytest

from ollama_async.native.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ANSWER = 100


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    model = write_tiny_model(folder / "tiny.gguf", quantization="Q8_0")
    module = "tests.integration.llama_engine.pool_answers"
    line = [sys.executable, "-m", module, str(model), str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_cache_is_a_pool_where_attention_is_our_own(found):
    assert found["is_pooled"] == found["kernels"].startswith("own")


def test_requests_that_lost_their_cells_say_what_they_would_have_said(found):
    assert found["answers"] == [ANSWER] * len(found["answers"])
    if found["is_pooled"]:
        assert found["preempted"] > 1
    if found["is_invariant"]:
        assert found["together"] == found["alone"]
