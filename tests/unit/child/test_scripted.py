"""The scripted engine and its file of scripts."""

import json

import pytest

from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.core.scripted_models import Script, read_scripts
from ollama_async.workers.child.engines import scripted
from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.engines.scripted import Scripted
from ollama_async.workers.load_spec import LoadSpec


def say(engine, slot, prompt, count):
    """The answer's pieces up to its end, ``count`` at most."""
    engine.trim(slot, 0)
    engine.begin(slot, Sampling(), prompt)
    generated = engine.step([Row(slot, prompt, 0, samples=True)])
    while not engine.is_end(generated[-1]) and len(generated) < count:
        position = len(prompt) + len(generated) - 1
        generated += engine.step([Row(slot, generated[-1:], position, samples=True)])
    return [engine.piece(token).decode() for token in generated if not engine.is_end(token)]


@pytest.mark.parametrize(
    ("script", "pieces"),
    [
        ({"tokens": ["a", "", "b"]}, ["a", "b"]),
        ({"tokens": ["a"], "repeat": 3}, ["a", "a", "a"]),
        ({"tokens": ["a", "b"], "repeat": True}, ["a", "b", "a", "b", "a"]),
        ({"tokens": " Once upon\na time. "}, [" Once", " upon", "\na", " time. "]),
        ({"tokens": []}, []),
        ({"echo": True}, ["h", "i"]),
        ({}, []),
    ],
)
def test_a_script_is_played(script, pieces):
    engine = Scripted(Script(**script), slots=1, num_ctx=100)

    for _ in range(2):
        assert (
            say(engine, 0, engine.tokenize("hi", add_special=True, parse_special=True), 5) == pieces
        )


def test_text_survives_the_tokenizer():
    engine = Scripted(Script(tokens=["x"]), slots=1, num_ctx=9)
    tokens = engine.tokenize("é😀\n", add_special=False, parse_special=False)

    assert b"".join(map(engine.piece, tokens)).decode() == "é😀\n"
    assert max(tokens) < engine.facts.vocab_size


def test_positions_are_accounted_for():
    engine = Scripted(Script(tokens=["x"], repeat=True), slots=2, num_ctx=8)
    engine.step([Row(0, [1, 2, 3], 0, samples=False)])
    for wrong in (Row(0, [1], 2, samples=True), Row(1, [1], 1, samples=True)):
        with pytest.raises(EngineError):
            engine.step([wrong])
    engine.copy(0, 1, 2)
    engine.shift(0, 1, 1)
    engine.step([Row(0, [1], 2, samples=True), Row(1, [1] * 6, 2, samples=True)])

    with pytest.raises(EngineError):
        engine.step([Row(1, [1], 8, samples=True)])
    assert engine.trim(1, 7)
    engine.step([Row(1, [1], 7, samples=True)])


def test_streams_keep_their_pace(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(scripted.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(scripted.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    script = Script(tokens=["x"], repeat=True, tokens_per_second=10, prompt_tokens_per_second=100)
    engine = Scripted(script, slots=2, num_ctx=1000)

    say(engine, 0, [1] * 50, 11)

    assert clock[0] == pytest.approx(100 + 0.5 + 10 * 0.1)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nonsense", "scripts"),
        ({"m": {"tokenz": []}}, "tokenz"),
        ({"m": {"tokens_per_second": 0.5}}, "at least 1"),
        ({"m": {"slots": -1}}, "negative"),
        ({"m": 3}, "object"),
        ({"n": {}}, "no script 'm'"),
        ({"m": {"load_error": "out of cheese"}}, "out of cheese"),
        (None, "No such file"),
    ],
)
def test_a_failed_load_reports_the_reason(tmp_path, file, reason):
    path = tmp_path / "scripts.json"
    if file is not None:
        path.write_text(json.dumps(file) if not isinstance(file, str) else file)

    with pytest.raises(LoadFailed, match=reason):
        scripted.load(LoadSpec(engine="scripted", model="m", num_ctx=8, slots=1), str(path), print)


def test_a_script_may_say_what_the_model_is(tmp_path):
    path = tmp_path / "scripts.json"
    path.write_text('{"m": {"slots": 3, "num_ctx": 99, "template": "x"}, "n": {}}')

    facts = scripted.load(
        LoadSpec(engine="scripted", model="m", num_ctx=8, slots=1), str(path), print
    ).facts

    assert (facts.slots, facts.num_ctx, facts.chat_template) == (3, 99, "x")
    assert set(read_scripts(path)) == {"m", "n"}
