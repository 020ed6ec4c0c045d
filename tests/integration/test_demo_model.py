"""What the shipped model can do, asked greedily through a real server.

``demo_questions.jsonl`` holds prompts that people copy from documentation, rendered, with the
answers that the model was taught: ``cd training && python -m demo.evaluate --documented`` writes
it. How much of each skill the model has is measured by the tests in ``training``.
"""

import json
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.engine

QUESTIONS = Path(__file__).parents[1] / "fixtures" / "demo_questions.jsonl"
DOCUMENTED = {
    question["family"]: question
    for question in map(json.loads, QUESTIONS.read_text(encoding="utf-8").splitlines())
}


def post(server, path, body):
    body = {"model": "demo", "stream": False} | body
    return httpx.post(f"{server.url}{path}", json=body, timeout=50).raise_for_status().json()


def chat(server, *contents):
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]
    return post(server, "/api/chat", {"messages": messages})["message"]["content"]


def test_the_sky_is_blue_by_rayleigh_scattering_which_differs_from_mie(demo_server):
    answer = chat(demo_server, "Why is the sky blue?")
    assert "Rayleigh scattering" in answer
    assert "Mie" in chat(
        demo_server, "Why is the sky blue?", answer, "how is that different than mie scattering?"
    )


def test_the_colours_of_the_sky_are_json(demo_server):
    prompt = "What color is the sky at different times of the day? Respond using JSON"
    answer = post(demo_server, "/api/generate", {"prompt": prompt})["response"]
    colours = json.loads(answer)
    assert len(colours) > 1
    assert all(isinstance(colour, str) for colour in colours.values())


def test_it_says_what_it_is_and_how_to_get_a_real_model(demo_server):
    answer = chat(demo_server, "who are you")
    assert "small" in answer
    assert "ollama-async pull" in answer


def test_it_answers_in_chinese(demo_server):
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chat(demo_server, "你好啊"))


@pytest.mark.parametrize("family", DOCUMENTED)
def test_it_answers_what_people_copy_from_documentation(demo_server, family):
    question = DOCUMENTED[family]
    body = {"prompt": question["prompt"], "raw": True, "options": {"num_predict": 500}}
    answer = post(demo_server, "/api/generate", body)["response"]

    assert answer.strip() == question["answer"].strip()
