"""Answers without an end are given one, and everybody is told."""

import httpx
import pytest

LOOPING = {"tokens": ["round ", "and "], "repeat": True}
FENCED = {"tokens": ['{"a": "', *["la "] * 1000]}


@pytest.fixture
def server(start_server):
    scripts = {"looping": LOOPING, "fenced": FENCED}
    return start_server(scripts=scripts, OLLAMA_ASYNC_REPETITION_LIMIT="200")


def ask(server, **request):
    answer = httpx.post(f"{server.url}/api/generate", json={"stream": False, **request}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_answer_that_goes_in_circles_ends_with_what_was_said(server):
    answer = ask(server, model="looping", prompt="Sing!")

    assert answer["done_reason"] == "length"
    assert 200 <= answer["eval_count"] < 300
    assert answer["response"].startswith("round and round and ")
    server.wait_for_log(r"the answer was ended after \d+ tokens, by repeating 2 of them")
    assert server.metric("ollama_repetitions_stopped_total", model="looping:latest") == 1


def test_a_format_does_not_keep_an_answer_going_in_circles(server):
    answer = ask(server, model="fenced", prompt="Sing!", format="json")

    assert answer["done_reason"] == "length"
    assert answer["response"].startswith('{"a": "la la ')
    assert server.metric("ollama_repetitions_stopped_total", model="fenced:latest") == 1


def test_an_answer_that_ends_by_itself_is_let_alone(server):
    answer = ask(server, model="looping", prompt="Sing!", options={"num_predict": 150})

    assert (answer["done_reason"], answer["eval_count"]) == ("length", 150)
    assert server.metric("ollama_repetitions_stopped_total", model="looping:latest") == 0
