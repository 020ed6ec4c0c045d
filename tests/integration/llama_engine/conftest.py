"""Engines that the tests share: random weights for exact comparisons, the demo model for sense."""

import pytest

from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines.llama_cpp import load
from tests.integration.llama_engine.harness import QUESTIONS, SLOTS, spec_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "tiny.gguf",
        chat_template="{{ messages }}",
        control_tokens=("<|turn|>",),
    )


@pytest.fixture(scope="module")
def shared_engine(model):
    engine = load(spec_of(model), lambda _fraction: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def demo_engine(demo_model):
    """With a slot for each question."""
    engine = load(spec_of(demo_model, slots=len(QUESTIONS)), lambda _fraction: None)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine):
    """An engine whose slots are empty, as after a load."""
    for slot in range(SLOTS):
        shared_engine.end(slot)
        shared_engine.trim(slot, 0)
    return shared_engine
