"""What a server says, shown on a terminal: it cannot command it."""

import json

import pytest

from ollama_async.cli.main import main
from tests.unit.cli.terminal import shown

CLEAR = "\x1b[2J\x1b]52;c;cm0gLXJm\x07\x1b]8;;http://evil\x1b\\\x9b2J\x9d0;t\x9c\x08\x0c\x7f"
HOSTILE = f"be{CLEAR}fore\rafter"
SEQUENCES = [b"\x1b[2J", b"\x1b]52", b"\x1b]8", b"\xc2\x9b", b"\xc2\x9d", b"\x07", b"\x08", b"\x0c"]
GENERATED = [
    {"response": "", "thinking": HOSTILE, "done": False},
    {"response": HOSTILE, "done": False},
    {"response": "\x1b", "done": False},
    {"response": "[2J", "done": True},
]
SHOWN = {
    "license": HOSTILE,
    "system": HOSTILE,
    "template": HOSTILE,
    "modelfile": HOSTILE,
    "parameters": HOSTILE,
    "capabilities": [HOSTILE],
    "details": {"family": HOSTILE, "parameter_size": HOSTILE, "quantization_level": HOSTILE},
    "model_info": {"general.name": HOSTILE, HOSTILE: HOSTILE},
    "tensors": [{"name": HOSTILE, "type": HOSTILE, "shape": [1]}],
}
ROW = {"name": HOSTILE, "model": HOSTILE, "digest": HOSTILE, "size": 1, "modified_at": HOSTILE}
STATUSES = [
    {"status": HOSTILE},
    {"status": f"pulling {HOSTILE}", "digest": HOSTILE, "total": 9, "completed": 3},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "route", "answer"),
    [
        (["list"], ("GET", "/api/tags"), json.dumps({"models": [ROW]}).encode()),
        (["ps"], ("GET", "/api/ps"), json.dumps({"models": [ROW]}).encode()),
        (["show", "m", "--verbose"], ("POST", "/api/show"), json.dumps(SHOWN).encode()),
        (["show", "m", "--license"], ("POST", "/api/show"), json.dumps(SHOWN).encode()),
        (["run", "m", "hi"], ("POST", "/api/generate"), GENERATED),
        (["run", "m", "hi", "--nowordwrap"], ("POST", "/api/generate"), GENERATED),
        (["run", "m", "hi"], ("POST", "/api/generate"), [{"error": HOSTILE}]),
        (["run", "m", "hi"], ("POST", "/api/generate"), [HOSTILE.encode()]),
        (["pull", "m"], ("POST", "/api/pull"), [*STATUSES, {"error": HOSTILE}]),
        (["pull", "m"], ("POST", "/api/pull"), [*STATUSES, {"status": "success"}]),
        (["--version"], ("GET", "/api/version"), json.dumps({"version": HOSTILE}).encode()),
    ],
)
def test_no_sequence_of_a_server_reaches_a_terminal(fake, words, route, answer):
    fake.answers[route] = (200, answer)
    screen, _ = shown(words)
    assert b"be\\x1b[2J" in screen
    assert [sequence for sequence in SEQUENCES if sequence in screen] == []


@pytest.mark.parametrize("body", [json.dumps({"error": HOSTILE}).encode(), HOSTILE.encode()])
def test_nor_does_one_in_an_error(fake, body, capsys):
    fake.answers["POST", "/api/show"] = (500, body)
    screen, status = shown(["show", "m"])
    assert (status, [each for each in SEQUENCES if each in screen]) == (1, [])
    assert main(["show", "m"]) == 1
    error = capsys.readouterr().err  # no terminal, but a log ends on one
    assert [each for each in SEQUENCES if each in error.encode()] == []
    assert "be\\x1b[2J" in error


def test_what_does_not_go_to_a_terminal_is_as_it_came(fake, capsys):
    fake.answers["POST", "/api/show"] = (200, json.dumps(SHOWN).encode())
    assert main(["show", "m", "--modelfile"]) == 0
    assert capsys.readouterr().out == f"{HOSTILE}\n"
    fake.answers["POST", "/api/generate"] = (200, [{"response": HOSTILE, "done": True}])
    assert main(["run", "m", "hi"]) == 0
    assert capsys.readouterr().out == f"{HOSTILE}\n\n"
