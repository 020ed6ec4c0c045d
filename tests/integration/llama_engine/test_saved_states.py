"""States of the real engine: saved, restored into any slot of any engine, and forged."""

import random

import numpy as np
import pytest

from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_cpp import load
from tests.integration.llama_engine.harness import (
    GREEDY,
    generate,
    go_on,
    spec_of,
    start,
    tokens_of,
)
from tests.integration.llama_engine.test_invariance import HEADS, MODELS, WIDTH

pytestmark = pytest.mark.engine

TEXT = "they said that people of the water"


def saved(engine, slot):
    state = np.zeros(engine.state_bytes(slot), np.uint8)
    assert engine.save(slot, state)
    return state


def read(engine, slot, text):
    """Make the slot hold all tokens of ``text`` but the last; returns these."""
    tokens = tokens_of(engine, text)
    engine.trim(slot, 0)
    start(engine, slot, tokens[:-1])
    engine.end(slot)
    return tokens


def continued(engine, slot, tokens):
    """The answer to ``tokens`` in a slot that holds all but the last."""
    engine.begin(slot, GREEDY, tokens)
    answer = engine.step([Row(slot, tokens[-1:], len(tokens) - 1, samples=True)])
    answer = go_on(engine, slot, answer, len(tokens), 24)
    engine.end(slot)
    return answer


def test_a_state_is_restored_into_any_slot_whatever_that_held(engine):
    expected = generate(engine, 0, TEXT)
    tokens = read(engine, 0, TEXT)
    state = saved(engine, 0)
    generate(engine, 2, "something else altogether")
    engine.trim(0, 0)

    assert engine.restore(2, state, len(tokens) - 1)
    assert continued(engine, 2, tokens) == expected


def test_a_part_of_a_state_is_as_good_as_computed(engine):
    expected = generate(engine, 0, TEXT)
    tokens = tokens_of(engine, TEXT)
    read(engine, 1, f"{TEXT} and so on")
    length = len(tokens_of(engine, f"{TEXT} and so on")) - 1
    state = saved(engine, 1)

    assert engine.restore(3, state, length)
    assert engine.trim(3, len(tokens) - 1)
    assert continued(engine, 3, tokens) == expected


@pytest.mark.parametrize("flash_attention", ["on", "off"])
@pytest.mark.parametrize("cache_type", ["f16", "f32"])
def test_a_state_outlives_its_engine(model, flash_attention, cache_type):
    spec = spec_of(model, flash_attention=flash_attention, cache_type=cache_type)
    engine = load(spec, lambda _fraction: None)
    expected = generate(engine, 0, TEXT)
    tokens = read(engine, 0, TEXT)
    state, layout = saved(engine, 0), engine.facts.state_layout
    engine.close()

    engine = load(spec, lambda _fraction: None)
    assert engine.facts.state_layout == layout
    assert engine.restore(1, state, len(tokens) - 1)
    assert continued(engine, 1, tokens) == expected
    engine.close()


def write_windowed_model(path):
    """With sliding windows of 8 tokens in five layers of six."""
    window = {"metadata": {"gemma3.attention.sliding_window": 8}}
    shape = {"width": WIDTH, "heads": HEADS, "kv_heads": 1, "architecture": "gemma3"}
    return write_tiny_model(path, **shape, **MODELS["gemma3"] | window)


def test_a_part_of_a_sequence_with_sliding_windows_is_copied_with_them(tmp_path):
    engine = load(spec_of(write_windowed_model(tmp_path / "tiny.gguf")), lambda _fraction: None)
    expected = generate(engine, 0, TEXT)
    tokens = tokens_of(engine, TEXT)
    read(engine, 1, f"{TEXT} {TEXT} {TEXT}")

    assert engine.copy(1, 2, len(tokens) - 1)
    assert continued(engine, 2, tokens) == expected
    engine.close()


@pytest.mark.parametrize("kind", ["positions of three dimensions", "sliding windows"])
def test_models_of_other_shapes_get_their_states_back(tmp_path, kind):
    """A state has more of each cell, or two caches of which one lacks old tokens."""
    if kind == "sliding windows":
        path = write_windowed_model(tmp_path / "tiny.gguf")
    else:
        sections = {"qwen2vl.rope.dimension_sections": [2, 3, 3, 0]}
        path = write_tiny_model(tmp_path / "tiny.gguf", architecture="qwen2vl", metadata=sections)
    text = f"{TEXT} {TEXT} {TEXT}"
    engine = load(spec_of(path), lambda _fraction: None)
    expected = generate(engine, 0, text)
    tokens = read(engine, 0, text)
    state = saved(engine, 0)

    assert engine.is_acceptable(state, len(tokens) - 1)
    assert engine.restore(1, state, len(tokens) - 1)
    assert continued(engine, 1, tokens) == expected
    for length in (len(tokens) - 4, len(tokens) - 12):
        assert engine.restore(2, state, len(tokens) - 1)
        assert engine.trim(2, length) == engine.facts.can_trim_restored
    engine.close()


def test_a_layout_that_differs_has_another_name(model):
    def layout(**changes):
        engine = load(spec_of(model, **changes), lambda _fraction: None)
        name = engine.facts.state_layout
        engine.close()
        return name

    assert len({layout(), layout(), layout(cache_type="f32"), layout(slots=2)}) == 3


def test_a_shift_that_is_not_computed_yet_cannot_be_saved(engine):
    read(engine, 0, TEXT)
    engine.shift(0, 1, 2)

    assert engine.state_bytes(0) == 0


def test_a_state_of_other_tokens_than_claimed_leaves_the_slot_empty(engine):
    tokens = read(engine, 0, TEXT)
    state = saved(engine, 0)

    assert not engine.restore(1, state, len(tokens))
    assert not engine.restore(1, state[:-1], len(tokens) - 1)
    assert not engine.restore(1, state[:3], len(tokens) - 1)
    assert generate(engine, 1, "how") == generate(engine, 2, "how")


def test_what_the_engine_saves_is_acceptable(model):
    for changes in ({"flash_attention": "off"}, {"flash_attention": "on"}, {"slots": 1}):
        engine = load(spec_of(model, **changes), lambda _fraction: None)
        tokens = read(engine, 0, TEXT)
        state = saved(engine, 0)

        assert engine.is_acceptable(state, len(tokens) - 1)
        assert not engine.is_acceptable(state, len(tokens))
        assert not engine.is_acceptable(state[:-1], len(tokens) - 1)
        engine.close()


def test_forged_states_that_are_acceptable_leave_no_harm(engine):
    """Each byte of a state's head is changed, and some of the rest."""
    expected = generate(engine, 3, "how")
    tokens = read(engine, 0, TEXT)
    state = saved(engine, 0)
    chance = random.Random(1)
    places = [*range(min(len(state), 200)), *(chance.randrange(len(state)) for _ in range(200))]
    outcomes = set()
    for place in places:
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            forged = state.copy()
            forged[place] = value
            if engine.is_acceptable(forged, len(tokens) - 1):
                outcomes.add(engine.restore(1, forged, len(tokens) - 1))
                engine.trim(1, 0)
    assert outcomes == {True, False}
    assert generate(engine, 1, "how") == expected
    assert generate(engine, 3, "how") == expected
