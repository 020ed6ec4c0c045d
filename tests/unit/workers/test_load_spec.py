"""A load spec as an argv, and back."""

import msgspec
import pytest

from ollama_async.workers.child.process_setup import read_options
from ollama_async.workers.load_spec import LoadSpec

PLAIN = LoadSpec(engine="llama_cpp", model="/models/m.gguf", num_ctx=256, slots=2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_mmap": False, "gpu_layers": -1, "cache_type": "q8_0"},
        {"adapters": ("/models/a b:c.gguf",)},
        {"embedding": "split", "batch_size": 2048},
        {"adapters": ("/models/a.gguf", "/models/b.gguf")},
    ],
)
def test_a_spec_survives_the_round_trip_through_argv(changes):
    spec = msgspec.structs.replace(PLAIN, **changes)
    assert LoadSpec.from_options(read_options(spec.to_argv())) == spec


def test_defaults_are_omitted():
    assert "--adapters" not in PLAIN.to_argv()


def test_invalid_options_are_refused():
    with pytest.raises(msgspec.ValidationError):
        LoadSpec.from_options({"engine": "llama_cpp"})
    with pytest.raises(msgspec.ValidationError):
        LoadSpec.from_options({**read_options(PLAIN.to_argv()), "num-ctx": "many"})
