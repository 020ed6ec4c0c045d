"""``run`` of a model that the server does not have."""

import pytest

from ollama_async.cli.main import main

MISSING = (404, b'{"error":"model \'demo\' not found"}')
ANSWER = [{"response": "Hello", "done": False}, {"response": "", "done": True}]


@pytest.fixture
def pulled(fake):
    """The model appears as the pull ends."""

    def statuses():
        yield {"status": "pulling manifest"}
        fake.answers["POST", "/api/generate"] = (200, ANSWER)
        yield {"status": "success"}

    fake.answers["POST", "/api/generate"] = MISSING
    fake.answers["POST", "/api/pull"] = (200, statuses())
    return fake


def test_a_missing_model_is_pulled_and_then_used(pulled, capsys):
    assert main(["run", "demo", "say", "hello"]) == 0

    assert capsys.readouterr() == ("Hello\n\n", "pulling manifest\nsuccess\n")
    assert pulled.bodies("/api/pull") == [{"model": "demo", "insecure": False}]
    first, second = pulled.bodies("/api/generate")
    assert first == second


def test_it_may_come_from_an_insecure_registry(pulled):
    assert main(["run", "demo", "hello", "--insecure"]) == 0

    assert pulled.bodies("/api/pull") == [{"model": "demo", "insecure": True}]


def test_a_failed_pull_is_reported(fake, capsys):
    fake.answers["POST", "/api/generate"] = MISSING
    error = "pull model manifest: file does not exist"
    fake.answers["POST", "/api/pull"] = (200, [{"status": "pulling manifest"}, {"error": error}])

    assert main(["run", "demo", "hello"]) == 1

    assert capsys.readouterr().err == f"pulling manifest\nError: {error}\n"


def test_nothing_is_pulled_for_another_reason(fake, capsys):
    fake.answers["POST", "/api/generate"] = (503, b'{"error":"server busy"}')

    assert main(["run", "demo", "hello"]) == 1

    assert capsys.readouterr().err == "Error: server busy\n"
    assert fake.bodies("/api/pull") == []


def test_a_model_that_is_missing_after_its_pull_is_not_pulled_again(fake, capsys):
    fake.answers["POST", "/api/generate"] = MISSING
    fake.answers["POST", "/api/pull"] = (200, [{"status": "success"}])

    assert main(["run", "demo", "hello"]) == 1

    assert capsys.readouterr().err.endswith("Error: model 'demo' not found\n")
    assert len(fake.bodies("/api/pull")) == 1
