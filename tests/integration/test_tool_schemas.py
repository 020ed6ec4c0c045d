"""Tool calls obey the tools' schemas, through a real server."""

import json

import httpx
import jsonschema
import pytest

TIMEOUT_S = 50
TIDE = {
    "type": "function",
    "function": {
        "name": "look_up_tide",
        "description": "The tide at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "harbour": {"type": "string", "enum": ["Wyk auf Föhr", "Husum"]},
                "hours_from_now": {"type": "integer", "minimum": 3, "maximum": 9},
            },
            "required": ["harbour", "hours_from_now"],
        },
    },
}
TEMPLATE = "{{ messages[-1].content }}{{ tools }}<tool_call></tool_call>"
WRONG = [
    "Let me see. ",
    "<tool_call>",
    *'{"name": "look_up_ebb", "arguments": {"place": "Rome"}}',
    "</tool_call>",
]


def chat(server, **body):
    body = {"stream": False, "tools": [TIDE]} | body
    answer = httpx.post(f"{server.url}/api/chat", json=body, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    return answer.json()["message"]


def ask(text):
    return [{"role": "user", "content": text}]


@pytest.mark.engine
@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("days", [1, 30])
def test_a_small_model_calls_tools_that_it_has_never_seen_as_they_are_declared(
    demo_server, think, days
):
    question = f"What is the weather in Paris in {days} days?"
    message = chat(demo_server, model="demo", messages=ask(question), think=think)

    for call in message.get("tool_calls", []):
        assert call["function"]["name"] == "look_up_tide"
        jsonschema.validate(call["function"]["arguments"], TIDE["function"]["parameters"])
    assert message.get("tool_calls") or message["content"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_is_held_to_the_tools_once_it_has_begun(start_server, stream):
    scripts = {"sailor": {"tokens": WRONG, "template": TEMPLATE, "capabilities": ["tools"]}}
    server = start_server(scripts=scripts)
    body = {"model": "sailor", "messages": ask("Tide?"), "tools": [TIDE], "stream": stream}
    answer = httpx.post(f"{server.url}/api/chat", json=body, timeout=TIMEOUT_S)
    messages = [json.loads(line)["message"] for line in answer.text.splitlines()]

    assert "".join(message["content"] for message in messages).startswith("Let me see.")
    (call,) = [call for message in messages for call in message.get("tool_calls", [])]
    assert call["function"]["name"] == "look_up_tide"
    jsonschema.validate(call["function"]["arguments"], TIDE["function"]["parameters"])


def test_a_server_may_let_models_call_what_they_like(start_server):
    scripts = {"sailor": {"tokens": WRONG, "template": TEMPLATE, "capabilities": ["tools"]}}
    server = start_server(scripts=scripts, OLLAMA_ASYNC_TOOL_SCHEMAS="0")
    message = chat(server, model="sailor", messages=ask("Tide?"))

    (call,) = message["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == (
        "look_up_ebb",
        {"place": "Rome"},
    )
