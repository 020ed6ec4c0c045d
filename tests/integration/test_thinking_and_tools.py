"""Messages in and meaning out, through a real server and real workers: the package's model where it
matters that a model thinks and calls, the scripted engine for what a model would do by chance only.
"""

from __future__ import annotations

import json
import re

import httpx
import pytest

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather for a location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The location, e.g. Paris"},
                "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location", "format"],
        },
    },
}
ASKED = [{"role": "user", "content": "What is the weather today in Paris?"}]
CALL_ID = re.compile(r"call_[a-z0-9]{8}")
TIMEOUT_S = 50


def post(server, path, **body):
    body = {"model": "demo", "stream": False} | body
    return httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S)


def lines(server, path, **body):
    answer = post(server, path, stream=True, **body).raise_for_status()
    return [json.loads(line) for line in answer.text.splitlines()]


def joined(objects, field):
    return "".join(each["message"].get(field, "") for each in objects)


# ------------------------------------------------------------------ the package's model


@pytest.mark.engine
@pytest.mark.parametrize("think", [True, False])
def test_a_tool_is_called_once_it_is_known_to_the_end(demo_server, think):
    objects = lines(demo_server, "/api/chat", messages=ASKED, tools=[WEATHER], think=think)

    (calls,) = [
        each["message"]["tool_calls"] for each in objects if "tool_calls" in each["message"]
    ]
    (call,) = calls
    assert CALL_ID.fullmatch(call["id"])
    assert call["function"]["index"] == 0
    assert call["function"]["name"] == "get_current_weather"
    assert call["function"]["arguments"]["location"] == "Paris"
    assert (objects[-1]["done"], objects[-1]["done_reason"]) == (True, "stop")
    assert joined(objects, "content") == ""
    assert bool(joined(objects, "thinking")) is think


@pytest.mark.engine
def test_a_tool_call_without_streaming_is_in_the_message(demo_server):
    answer = post(demo_server, "/api/chat", messages=ASKED, tools=[WEATHER]).json()

    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "get_current_weather"
    assert list(call["function"]["arguments"]) == ["location", "format"]
    assert "<tool_call>" not in json.dumps(answer)


@pytest.mark.engine
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_thoughts_are_apart_from_the_answer_unless_they_are_not_wanted(demo_server, path):
    asked = {"prompt": "What is 17 + 25?", "messages": [{"role": "user", "content": "17 + 25?"}]}

    def said(**fields):
        answer = post(demo_server, path, **asked, **fields).raise_for_status().json()
        message = answer.get("message") or answer | {"content": answer["response"]}
        return message["content"], message.get("thinking", "")

    content, thinking = said(think=True)
    assert content
    assert thinking
    assert said() == (content, thinking)  # a model that can think does
    content, thinking = said(think=False)
    assert content
    assert not thinking
    assert "think>" not in content


@pytest.mark.engine
def test_the_prompt_is_shown_as_the_model_would_read_it(demo_server):
    shown = {"_debug_render_only": True, "think": False}
    turn = {"role": "user", "content": "hi"}
    chat = post(demo_server, "/api/chat", messages=[turn], **shown).json()
    generate = post(demo_server, "/api/generate", prompt="hi", **shown).json()

    assert chat["_debug_info"] == generate["_debug_info"]
    assert chat["_debug_info"]["rendered_template"] == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    tools = post(demo_server, "/api/chat", messages=[turn], tools=[WEATHER], **shown).json()
    assert '"name": "get_current_weather"' in tools["_debug_info"]["rendered_template"]


@pytest.mark.engine
def test_a_request_may_bring_its_own_template(demo_server):
    fields = {"prompt": "hi", "system": "s", "_debug_render_only": True}
    shown = post(demo_server, "/api/generate", template="{{ .System }}|{{ .Prompt }}", **fields)
    broken = post(demo_server, "/api/generate", template="{{ .Prompt", **fields)

    assert shown.json()["_debug_info"]["rendered_template"] == "s|hi"
    assert broken.status_code == 400
    assert broken.json()["error"].startswith("template: ")


@pytest.mark.engine
def test_what_the_model_cannot_do_is_refused(demo_server):
    refused = post(demo_server, "/api/generate", prompt="x", suffix="y")

    assert refused.status_code == 400
    assert refused.json() == {
        "error": "registry.ollama.ai/library/demo:latest does not support insert"
    }


# ------------------------------------------------------------------ scripted answers

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}\n{% endfor %}"
)


def speaker(*tokens, **more):
    """A model that thinks and calls as Qwen's do."""
    return {
        "tokens": list(tokens),
        "slots": 2,
        "num_ctx": 128,
        "template": TEMPLATE,
        "parser": "qwen3",
        "capabilities": ["tools", "thinking"],
        **more,
    }


CALL = '<tool_call>\n{"name": "f", "arguments": {"b": 1, "a": "é"}}\n</tool_call>'
SCRIPTS = {
    "between": speaker(*"Before. ", *CALL, *" After."),
    "twice": speaker(CALL + CALL),
    "open": speaker("So: ", CALL[:30], "never sent"),
    "broken": speaker('<tool_call>\n{"name": "f", "arguments": {"b": }\n</tool_call>'),
    "slow": speaker("So: ", CALL[:20], *["x"] * 500, tokens_per_second=100),
    "thinks": speaker("<think>", "one ST", "OP two", "</think>", "three", parser="qwen3-thinking"),
}
PROPERTIES = {"a": {"type": "string"}, "b": {"type": "integer"}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": PROPERTIES}},
    }
]


@pytest.fixture
def scripted(start_server):
    return start_server(scripts=SCRIPTS)


def test_answers_with_calls_are_taken_apart_however_they_come(scripted):
    def chat(model, **fields):
        body = {"model": model, "messages": ASKED, "tools": TOOLS, **fields}
        return lines(scripted, "/api/chat", **body)

    between = chat("between")
    kinds = [
        "call" if "tool_calls" in each["message"] else each["message"]["content"]
        for each in between[:-1]
    ]
    assert "call" in kinds
    cut = kinds.index("call")
    assert "".join(kinds[:cut]).strip() == "Before."
    assert "".join(kinds[cut + 1 :]).strip() == "After."
    (call,) = between[cut]["message"]["tool_calls"]
    assert list(call["function"]["arguments"].items()) == [("b", 1), ("a", "é")]

    twice = post(scripted, "/api/chat", model="twice", messages=ASKED, tools=TOOLS).json()
    calls = twice["message"]["tool_calls"]
    assert [each["function"]["index"] for each in calls] == [0, 1]
    assert len({each["id"] for each in calls}) == 2

    limited = chat("open", options={"num_predict": 2})
    assert limited[-1]["done_reason"] == "length"
    assert joined(limited, "content").replace(" ", "") == f"So:{CALL[:30]}".replace(" ", "")

    assert '{"name": "f", "arguments": {"b": }' in joined(chat("broken"), "content")

    stopped = chat("thinks", think=True, options={"stop": ["STOP"]})
    assert joined(stopped, "thinking").strip() == "one"
    assert joined(stopped, "content") == ""
    assert stopped[-1]["done_reason"] == "stop"


async def test_a_client_that_leaves_inside_a_call_frees_the_slot(scripted):
    body = {"model": "slow", "messages": ASKED, "tools": TOOLS}
    async with (
        httpx.AsyncClient(timeout=TIMEOUT_S) as client,
        client.stream("POST", f"{scripted.url}/api/chat", json=body) as answer,
    ):
        first = await anext(answer.aiter_lines())
        assert json.loads(first)["message"]["content"].startswith("So:")
    await scripted.eventually("ollama_requests_running", 0.0)


def test_old_turns_leave_without_the_results_of_their_calls(scripted):
    call = {"function": {"name": "f", "arguments": {}}}
    turns = [
        {"role": "user", "content": "old question"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "old result", "tool_name": "f"},
        {"role": "assistant", "content": "old answer " * 4},
        {"role": "user", "content": "new question"},
    ]
    shown = post(
        scripted,
        "/api/chat",
        model="between",
        messages=[{"role": "system", "content": "rule"}, *turns],
        tools=TOOLS,
        _debug_render_only=True,
    ).json()

    text = shown["_debug_info"]["rendered_template"]
    assert "rule" in text
    assert "new question" in text
    assert "old" not in text
    assert text.endswith("f\n")
