"""Anthropic's protocol through a real server and real workers: the scripted engine says what a
model would say by chance only, the package's model counts tokens.
"""

from __future__ import annotations

import json

import httpx
import pytest

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}\n{% endfor %}"
)
CALL = '<tool_call>\n{"name": "f", "arguments": {"b": 1, "a": "é"}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
TOOLS = [{"name": "f", "description": "does it", "input_schema": SCHEMA}]
ASKED = [{"role": "user", "content": "hi"}]
TIMEOUT_S = 50


def speaker(*tokens, **more):
    """A model that thinks and calls as Qwen's do."""
    return {
        "tokens": list(tokens),
        "slots": 2,
        "num_ctx": 256,
        "template": TEMPLATE,
        "parser": "qwen3",
        "capabilities": ["tools", "thinking"],
        **more,
    }


SCRIPTS = {
    "caller": speaker(
        "<think>", "I must", " call.", "</think>", *CALL, *CALL, parser="qwen3-thinking"
    ),
    "talker": speaker("one ", "STOP ", "two"),
    "dying": speaker("so ", "far ", "x", crash_at=2, tokens_per_second=20),
}


@pytest.fixture
def scripted(start_server):
    return start_server(scripts=SCRIPTS)


def post(server, path="/v1/messages", **fields):
    body = {"max_tokens": 200, "messages": ASKED, **fields}
    return httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S)


def events(server, **fields):
    answer = post(server, stream=True, **fields).raise_for_status()
    blocks = answer.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(block.partition("\ndata: ")[2]) for block in blocks]


def test_a_turn_with_thinking_and_two_calls_goes_on_with_their_results(scripted):
    found = events(scripted, model="caller", tools=TOOLS)

    start, _, *middle, delta, _ = found
    blocks = [event["content_block"] for event in middle if event["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use", "tool_use"]
    inputs = [
        json.loads(event["delta"]["partial_json"])
        for event in middle
        if event["type"] == "content_block_delta" and "partial_json" in event["delta"]
    ]
    assert inputs == [{"b": 1, "a": "é"}] * 2
    assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    usage = start["message"]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] > 0
    assert delta["usage"] == usage | {"output_tokens": delta["usage"]["output_tokens"]}
    assert len({block["id"] for block in blocks[1:]}) == 2

    answer = post(scripted, model="caller", tools=TOOLS).json()
    assert [block["type"] for block in answer["content"]] == ["thinking", "tool_use", "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": f"result {number}"}
        for number, block in enumerate(answer["content"][1:])
    ]
    turns = [
        *ASKED,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [*results, {"type": "text", "text": "go on"}]},
    ]
    after = post(scripted, model="talker", tools=TOOLS, messages=turns).json()
    assert after["content"] == [{"type": "text", "text": "one STOP two"}]


def test_the_stop_sequence_that_matched_is_named(scripted):
    answer = post(scripted, model="talker", stop_sequences=["never", "STOP"]).json()
    assert answer["content"] == [{"type": "text", "text": "one"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "STOP")
    limited = post(scripted, model="talker", max_tokens=1).json()
    assert (limited["stop_reason"], limited["stop_sequence"]) == ("max_tokens", None)


def test_a_worker_that_dies_in_the_middle_is_an_error_event(scripted):
    *_, last, error = events(scripted, model="dying")
    assert last["delta"] == {"type": "text_delta", "text": " far"}
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")


@pytest.mark.engine
def test_tokens_are_counted_as_the_model_reads_them(demo_server):
    def count(**fields):
        path = "/v1/messages/count_tokens"
        answer = post(demo_server, path, model="demo", **fields).raise_for_status().json()
        return answer["input_tokens"]

    answer = post(demo_server, model="demo", max_tokens=1).raise_for_status().json()
    usage = answer["usage"]
    assert count() == usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert count() < count(system="Be brief.") < count(system="Be brief.", tools=TOOLS)
