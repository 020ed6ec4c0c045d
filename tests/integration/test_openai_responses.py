"""``/v1/responses`` through a real server and real workers: what models say, and conversations that
continue.
"""

from __future__ import annotations

import json

import httpx
import pytest

from tests.clients.models import PARIS, ROME, speaker
from tests.integration.conftest import running_servers

pytestmark = pytest.mark.slow

TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SCRIPTS = {
    "agent": speaker(
        *("<think>", "Both ", "cities.", "</think>", "Let me ", "look. ", PARIS, ROME),
        parser="qwen3-thinking",
    ),
    "echo": speaker(echo=True, parser=""),
    "endless": speaker("and ", "so ", "on ", repeat=True, parser=""),
    "dies": speaker("a ", "b ", "c ", crash_at=2, tokens_per_second=20, parser=""),
}
TIMEOUT_S = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory, engine_cache):
    with running_servers(tmp_path_factory.mktemp("responses"), engine_cache) as start:
        yield start(scripts=SCRIPTS)


@pytest.fixture
def post(server):
    def post(model, **body):
        body = {"model": model, "input": "hi", **body}
        return httpx.post(f"{server.url}/v1/responses", json=body, timeout=TIMEOUT_S)

    return post


@pytest.fixture
def events(post):
    def events(model, **body):
        blocks = post(model, stream=True, **body).raise_for_status().text.split("\n\n")
        return [json.loads(block.partition("\ndata: ")[2]) for block in blocks if block]

    return events


def test_thinking_text_and_two_calls_are_items_of_one_answer(post):
    body = post("agent", tools=[TOOL]).raise_for_status().json()

    thought, said, *calls = body["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Both cities."}]
    assert said["content"][0]["text"].strip() == "Let me look."
    assert [(call["name"], call["arguments"]) for call in calls] == [
        ("get_weather", '{"city":"Paris"}'),
        ("get_weather", '{"city":"Rome"}'),
    ]
    assert len({call["call_id"] for call in calls}) == 2
    assert 0 < body["usage"]["output_tokens_details"]["reasoning_tokens"] < 8
    assert body["usage"]["output_tokens"] >= 8


def test_a_stream_describes_the_same_items(post, events):
    described = events("agent", tools=[TOOL])

    assert [event["sequence_number"] for event in described] == list(range(len(described)))
    done = [event["item"] for event in described if event["type"] == "response.output_item.done"]
    assert described[-1]["response"]["output"] == done
    whole = post("agent", tools=[TOOL]).json()["output"]
    assert [anonymous(item) for item in done] == [anonymous(item) for item in whole]


def anonymous(item):
    return {name: value for name, value in item.items() if name not in {"id", "call_id"}}


def test_the_results_of_calls_reach_the_model_in_the_next_turn(post):
    first = post("agent", tools=[TOOL], instructions="obey").json()
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": item["arguments"]}
        for item in first["output"]
        if item["type"] == "function_call"
    ]

    second = post("echo", input=results, previous_response_id=first["id"]).json()

    (said,) = [item for item in second["output"] if item["type"] == "message"]
    prompt = said["content"][0]["text"]
    assert "user: hi\n" in prompt
    assert "Let me look." in prompt
    assert 'tool: {"city":"Paris"}\n' in prompt
    assert 'tool: {"city":"Rome"}\n' in prompt
    assert "obey" not in prompt


def test_a_continued_conversation_is_cached(post):
    first = post("endless", input="x" * 400, max_output_tokens=2).json()

    second = post(
        "endless", input="more", max_output_tokens=2, previous_response_id=first["id"]
    ).json()

    assert first["incomplete_details"] == {"reason": "max_output_tokens"}
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 400


def test_a_worker_that_dies_ends_the_stream_with_a_failed_response(events):
    *_, error, failed = events("dies")

    assert error["type"] == "error"
    assert "unexpectedly stopped" in error["message"]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "server_error"
