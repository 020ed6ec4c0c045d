"""Conversations as agents send them, through a real server to models with strict templates."""

from __future__ import annotations

import httpx
import pytest

STRICT = (
    "{% if messages[0].role == 'system' %}S:{{ messages[0].content }}\n"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% set n = namespace(turn=0) %}{% for m in messages %}"
    "{% if m.role not in ('user', 'assistant', 'tool') %}"
    "{{ raise_exception('no ' ~ m.role ~ ' here') }}{% endif %}"
    "{% if 'forbidden' in m.content %}{{ raise_exception('forbidden') }}{% endif %}"
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (n.turn % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}"
    "{% set n.turn = n.turn + 1 %}{% endif %}"
    "{% if m.tool_calls %}C:{{ m.tool_calls[0].function | tojson }}\n"
    "{% else %}{{ m.role[0] | upper }}:{{ m.content | trim }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
SPEAKER = {"tokens": ["fine"], "template": STRICT, "parser": "qwen3", "num_ctx": 4096}
SCRIPTS = {"strict": SPEAKER | {"capabilities": ["tools", "thinking"]}}


@pytest.fixture
def server(start_server):
    return start_server(scripts=SCRIPTS)


def chat(server, *messages, **fields):
    body = {"model": "strict", "stream": False, "messages": list(messages), **fields}
    return httpx.post(f"{server.url}/api/chat", json=body, timeout=50)


def prompt_of(server, *messages):
    shown = chat(server, *messages, _debug_render_only=True).raise_for_status().json()
    return shown["_debug_info"]["rendered_template"]


def say(role, content="", **fields):
    return {"role": role, "content": content, **fields}


def call(name):
    return {"function": {"name": name, "arguments": {"at": name * 2}}}


def test_conversations_of_many_shapes_reach_a_strict_template(server):
    ask, answer = say("user", "u"), say("assistant", "a")
    calls = say("assistant", "wait", thinking="hm", tool_calls=[call("f"), call("g")])
    results = [say("tool", f"{name}-result", tool_name=name) for name in "fg"]

    assert prompt_of(server, ask, answer, say("system", "s"), ask) == "S:s\nU:u\nA:a\nU:u\nA:"
    assert prompt_of(server, say("developer", "d"), say("system", "s"), ask) == "S:d\n\ns\nU:u\nA:"
    assert prompt_of(server, answer, ask) == "U:\nA:a\nU:u\nA:"
    assert prompt_of(server, ask, answer) == "U:u\nA:a"
    assert prompt_of(server, ask, say("assistant", "def f():\n    ")) == "U:u\nA:def f():\n    "
    worked = prompt_of(server, ask, calls, *results, ask)
    places = [worked.index(word) for word in ("U:u", "wait", '"ff"', "f-r", '"gg"', "g-r")]
    assert places == sorted(places)
    assert worked.endswith("U:u\nA:")

    refused = chat(server, ask, say("assistant", "it is forbidden"), ask)
    assert refused.status_code == 400
    assert refused.json() == {"error": "message 2 (assistant): forbidden"}
    assert chat(server, ask, calls, *results, ask).json()["message"]["content"] == "fine"
