"""With our own kernels a request has the same logits, bit for bit, in any company."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ollama_async.native.kernels import KernelsUnusable
from ollama_async.native.tiny_model import write_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

WIDTH, HEADS, HEAD_SIZE = 160, 5, 32


def norms(layers, **sizes):
    ones = {
        f"blk.{layer}.{name}.weight": np.ones(size, np.float32)
        for layer in range(layers)
        for name, size in sizes.items()
    }
    return {"more_tensors": ones, "layers": layers}


MODELS = {
    "llama": {},
    "qwen3": norms(2, attn_q_norm=HEAD_SIZE, attn_k_norm=HEAD_SIZE),
    # Five layers of six have a sliding window.
    "gemma3": norms(
        6,
        attn_q_norm=HEAD_SIZE,
        attn_k_norm=HEAD_SIZE,
        post_attention_norm=WIDTH,
        post_ffw_norm=WIDTH,
    )
    | {"metadata": {"gemma3.attention.sliding_window": 40}},
}


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize("architecture", list(MODELS))
def test_the_logits_of_a_request_do_not_depend_on_the_company(architecture, cache_type, tmp_path):
    model = write_tiny_model(
        tmp_path / "tiny.gguf",
        quantization="Q8_0",
        width=WIDTH,
        heads=HEADS,
        kv_heads=1,
        feed_forward=224,
        architecture=architecture,
        **MODELS[architecture],
    )
    module = "tests.integration.llama_engine.invariant_logits"
    line = [sys.executable, "-P", "-m", module, str(model), cache_type]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=100, check=False, env=environ
    )
    if KernelsUnusable.__name__ in done.stderr:
        return  # nothing is promised for stock
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["spread"] > 0
    assert not found["stock"]
    assert not found["differ"]
