"""What the model in the package can do, asked greedily through a real server.

Prompts with tools or thinking are rendered here and sent raw, so that the model's own text is seen.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import httpx
import pytest

from training.demo.evaluate import SUITES
from training.demo.example import is_right
from training.demo.render import prompt_text, split_thinking
from training.demo.skills import questions

pytestmark = pytest.mark.engine

DOCUMENTED = {
    example.family: example
    for example in questions.canonical()
    if example.family.startswith("docs.")
}
PROMISED = [suite for suite in SUITES if suite.least is not None]
SAMPLE = 60
AT_ONCE = 8


def post(server, path, body):
    body = {"model": "demo", "stream": False} | body
    return httpx.post(f"{server.url}{path}", json=body, timeout=50).raise_for_status().json()


def written(server, example):
    """Thinking and content that the model writes behind the example's prompt."""
    body = {"prompt": prompt_text(example), "raw": True, "options": {"num_predict": 500}}
    return split_thinking(post(server, "/api/generate", body)["response"])


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
    example = DOCUMENTED[family]
    thinking, content = written(demo_server, example)
    assert content.strip() == example.answer.content
    assert not thinking


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", PROMISED, ids=lambda suite: suite.name)
def test_it_can_do_what_its_card_says(demo_server, suite):
    rng = Random(5)
    examples = [suite.make(rng) for _ in range(SAMPLE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(partial(written, demo_server), examples))
    right = sum(
        is_right(example, *answer) for example, answer in zip(examples, answers, strict=True)
    )
    assert right >= SAMPLE * suite.least
