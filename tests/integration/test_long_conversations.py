"""Conversations that are longer than the context, through a real server and its workers."""

from __future__ import annotations

import httpx
import pytest

TIMEOUT_S = 50
NUM_CTX = 256
TEMPLATE = (
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{ raise_exception('No user query found in messages.') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
SCRIPTS = {
    "mirror": {  # its answer is what it has read, a token for each byte
        "echo": True,
        "slots": 2,
        "num_ctx": NUM_CTX,
        "template": TEMPLATE,
        "capabilities": ["tools"],
    }
}
QUESTION = {"role": "user", "content": "Where is the harbour?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "look_up", "arguments": {}}}],
}


@pytest.fixture
def server(start_server):
    return start_server(scripts=SCRIPTS)


def result(text):
    return {"role": "tool", "tool_name": "look_up", "content": text}


def post(server, path, **body):
    body = {"model": "mirror", "stream": False} | body
    return httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S)


def read(server, path="/api/chat", **body):
    """What the model has read, which is what ``_debug_render_only`` shows."""
    answer = post(server, path, **body).raise_for_status().json()
    text = answer["message"]["content"] if "message" in answer else answer["response"]
    shown = post(server, path, _debug_render_only=True, **body).raise_for_status().json()
    assert answer["prompt_eval_count"] == len(text)
    assert shown["_debug_info"] == {"rendered_template": text}
    return text


@pytest.mark.parametrize("tokens", [199, 255])
def test_what_fits_is_read_whole(server, tokens):
    """More than three quarters of the context, of which one is the answer's reserve."""
    frame = "<user>Where is the harbour?<assistant>look_up{}<tool>"
    found = "x" * (tokens - len(frame))

    text = read(server, messages=[QUESTION, CALL, result(found)])

    assert text == frame + found


def test_in_a_long_loop_the_task_and_the_newest_results_are_read(server):
    rounds = [each for at in range(200) for each in (CALL, result(f"page {at}"))]
    rule = {"role": "system", "content": "Be kind."}
    old = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "older"}]

    text = read(server, messages=[rule, *old, QUESTION, *rounds])

    assert text.startswith("<system>Be kind.<user>Where is the harbour?<assistant>look_up{}")
    assert text.endswith("<tool>page 199")
    assert text.count("<assistant>") == text.count("<tool>") > 1
    assert len(text) <= NUM_CTX - NUM_CTX // 4


def test_of_a_question_that_is_too_long_the_middle_is_missing(server):
    words = "".join(f"{number:04}" for number in range(200))
    question = {"role": "user", "content": words}

    chat = read(server, messages=[question, CALL, result("x" * 500)], options={"num_keep": 9})
    generate = read(server, "/api/generate", prompt=words, context=[*b"what was said\n"])

    assert chat.startswith("<user>000")
    assert chat.endswith("0199")
    assert generate.startswith("what")
    assert generate.endswith("0199")


def test_what_must_not_be_cut_is_refused_by_both(server):
    body = {"messages": [QUESTION, CALL, result("x" * 500)], "truncate": False}
    refusals = [
        post(server, "/api/chat", **body, _debug_render_only=only) for only in (True, False)
    ]

    assert [answer.status_code for answer in refusals] == [400, 400]
    assert "longer than the context length" in refusals[0].json()["error"]
    assert refusals[0].json() == refusals[1].json()


@pytest.mark.engine
def test_a_context_is_shown_with_its_control_tokens(demo_server):
    asked = {"model": "demo", "prompt": "hi", "think": False}
    answer = post(demo_server, "/api/generate", **asked, options={"num_predict": 1}).json()
    asked |= {"prompt": "and", "context": answer["context"], "_debug_render_only": True}
    shown = post(demo_server, "/api/generate", **asked).json()["_debug_info"]["rendered_template"]

    opening = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert shown.startswith(f"<|im_start|>user\nhi<|im_end|>\n{opening}")
    assert shown.endswith(f"<|im_start|>user\nand<|im_end|>\n{opening}")
