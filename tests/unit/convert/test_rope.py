"""Positions: the two spellings of configurations mean the same, unknown scaling is refused."""

import math

import numpy as np
import pytest

from ollama_async.convert import rope
from ollama_async.convert.config_files import JsonObject
from ollama_async.core.errors import BadRequest

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(**values):
    return JsonObject("config.json", {"max_position_embeddings": 4096, **values})


def spellings(kind, **values):
    """The same configuration as it was written until version 4, in between, and since."""
    yield config(rope_theta=500.0, rope_scaling={"type": kind, **values})
    yield config(rope_theta=500.0, rope_scaling={"rope_type": kind, **values})
    yield config(rope_parameters={"rope_type": kind, "rope_theta": 500.0, **values})


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("default", {}, {}),
        ("dynamic", {"factor": 2.0}, {}),
        ("linear", {"factor": 2.0}, {"type": "linear", "factor": 2.0}),
        (
            "yarn",
            {"factor": 4.0, "original_max_position_embeddings": 1024},
            {"type": "yarn", "factor": 4.0, "original_context_length": 1024},
        ),
        (
            "yarn",
            {"factor": math.e, "attention_factor": 2.2, "beta_fast": 16, "beta_slow": 2},
            {
                "type": "yarn",
                "factor": math.e,
                "original_context_length": 4096,
                "attn_factor": 2.0,
                "yarn_beta_fast": 16.0,
                "yarn_beta_slow": 2.0,
            },
        ),
        (
            "yarn",
            {"factor": math.e, "mscale": 2.0, "mscale_all_dim": 1.0},
            {
                "type": "yarn",
                "factor": math.e,
                "original_context_length": 4096,
                "attn_factor": 1.2 / 1.1 / 1.1,
            },
        ),
        (
            "yarn",
            {"factor": math.e, "mscale": 2.0},  # one alone says nothing
            {"type": "yarn", "factor": math.e, "original_context_length": 4096},
        ),
        ("llama3", LLAMA3, {}),
    ],
)
def test_every_spelling_gives_the_same_fields(kind, values, wanted):
    wanted = {f"rope.scaling.{key}": value for key, value in wanted.items()}
    for document in spellings(kind, **values):
        found = rope.fields(document, 8)
        assert found.pop("rope.dimension_count") == 8
        assert found.pop("rope.freq_base") == 500.0
        assert found == pytest.approx(wanted)


def test_llama3_leaves_fast_frequencies_and_slows_down_slow_ones():
    for document in spellings("llama3", **LLAMA3, rope_theta=500_000.0):
        (factors,) = rope.tensors(document, 128).values()
        assert factors.dtype == np.float32
        assert factors.shape == (64,)
        assert factors[0] == 1
        assert factors[-1] == 8
        assert (np.diff(factors) >= 0).all()


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_longrope_has_two_lists_of_factors(kind):
    values = {"long_factor": [2, 3], "short_factor": [1.0, 1.5]}
    for spelled in spellings(kind, **values):
        document = spelled.over({"original_max_position_embeddings": 1024})
        tensors = rope.tensors(document, 4)
        assert tensors["rope_factors_long.weight"].tolist() == [2, 3]
        assert tensors["rope_factors_short.weight"].tolist() == [1, 1.5]
        found = rope.fields(document, 4)
        assert found["rope.scaling.original_context_length"] == 1024
        wanted = math.sqrt(1 + math.log(4) / math.log(1024))
        assert found["rope.scaling.attn_factor"] == pytest.approx(wanted)


def test_layers_of_two_kinds_have_two_bases():
    old = config(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling={"type": "default"})
    new = config(
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    )
    for document in (old, new):
        assert rope.fields(document, 8)["rope.freq_base"] == 1e6
        assert rope.local_freq_base(document) == 1e4


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ({"type": "magic"}, "unknown way, 'magic'"),
        ({"type": "linear"}, 'has no "factor"'),
        ({"type": "linear", "factor": "2"}, '"factor" is not a number'),
        ({"type": 3}, '"type" is not a text'),
        ([], '"rope_scaling" is not an object'),
        ({"type": "longrope", "long_factor": [1], "short_factor": [1, 2]}, "4 numbers"),
        ({"type": "longrope", "long_factor": [1, None, 2, 3]}, "list of numbers"),
        ({"type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}, "are invalid"),
        ({"type": "llama3", "factor": 0}, "are invalid"),
    ],
)
def test_unknown_or_invalid_rope_scaling_is_rejected(scaling, reason):
    document = config(rope_scaling=scaling)
    with pytest.raises(BadRequest, match=reason):
        assert (rope.fields(document, 8), rope.tensors(document, 8)) is None
