"""What a request may demand of an answer's form, through a real server and real workers: logprobs,
one call or several, forced and forbidden calls, a schema after thoughts, tokens.
"""

from __future__ import annotations

import json
import math

import httpx
import pytest

from tests.integration.conftest import running_servers

TIMEOUT_S = 50
ASKED = [{"role": "user", "content": "hi"}]


def tool(name):
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("f"), tool("g")]


def hermes(name, number):
    arguments = json.dumps({"a": number})
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def xml(name, number):
    call = f"<function={name}>\n<parameter=a>\n{number}\n</parameter>\n</function>"
    return f"<tool_call>\n{call}\n</tool_call>"


def model(*tokens, parser, renderer="", **more):
    return {
        "tokens": list(tokens),
        "slots": 4,
        "num_ctx": 2048,
        "renderer": renderer,
        "parser": parser,
        "capabilities": ["tools", "thinking"],
        "template": "{% for m in messages %}{{ m.content }}{% endfor %}",
        **more,
    }


CALLS = {
    "hermes": (hermes, {"parser": "qwen3-vl-instruct", "renderer": "qwen3-vl-instruct"}),
    "coder": (xml, {"parser": "qwen3-coder", "renderer": "qwen3-coder"}),
    "qwen35": (xml, {"parser": "qwen3.5", "renderer": "qwen3.5"}),
}
THOUGHT = {"parser": "qwen3-vl-thinking", "renderer": "qwen3-vl-thinking"}


def scripts():
    made = {}
    for family, (call, format_) in CALLS.items():
        before = [] if family != "qwen35" else ["Hm.", "</think>\n\n"]
        said = [*before, "So: ", *call("f", 1), "\n", *call("g", 2), "\n", "Done."]
        made[family] = model(*said, **format_)
    made["thinker"] = model("Hm", ".", "</think>", "\n", "Not in any form", **THOUGHT)
    made["talker"] = model("caf", "é", " au ", "lait", parser="")
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory, engine_cache):
    with running_servers(tmp_path_factory.mktemp("fields"), engine_cache) as start:
        yield start(scripts=scripts(), offers_shipped=True, OLLAMA_KEEP_ALIVE="-1")


def post(server, path, **body):
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    return answer


def chat(server, model, **body):
    """The message and the reason of OpenAI's answer, which must be the same with streaming."""
    body = {"model": model, "messages": ASKED, **body}
    [choice] = post(server, "/v1/chat/completions", **body).json()["choices"]
    message = choice["message"]
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    whole = (message.get("content") or "", calls, choice["finish_reason"])
    assert streamed(server, body) == whole
    return whole


def streamed(server, body):
    content, calls, reason = "", [], None
    text = post(server, "/v1/chat/completions", **body, stream=True).text
    for event in text.removesuffix("data: [DONE]\n\n").split("\n\n"):
        if not event:
            continue
        [choice] = json.loads(event.removeprefix("data: "))["choices"]
        content += choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            assert call["index"] == len(calls)
            function = call["function"]
            calls.append((function["name"], json.loads(function["arguments"])))
        reason = choice["finish_reason"] or reason
    return content, calls, reason


@pytest.mark.parametrize("family", CALLS)
def test_an_answer_may_have_several_calls_or_only_one(server, family):
    content, calls, reason = chat(server, family, tools=TOOLS)
    assert calls == [("f", {"a": 1}), ("g", {"a": 2})]
    assert content.replace("\n", "").replace(" ", "") == "So:Done."
    assert reason == "tool_calls"

    content, calls, reason = chat(server, family, tools=TOOLS, parallel_tool_calls=False)
    assert calls == [("f", {"a": 1})]
    assert content.strip() == "So:"
    assert reason == "tool_calls"


@pytest.mark.parametrize("family", CALLS)
def test_a_model_that_must_not_call_does_not_see_the_tools(server, family):
    _, calls, reason = chat(server, family, tools=TOOLS, tool_choice="none")
    assert (calls, reason) == ([], "stop")

    def shown(**fields):
        body = {"model": family, "messages": ASKED, "_debug_render_only": True, **fields}
        return post(server, "/v1/chat/completions", **body).json()["_debug_info"]

    assert shown(tools=TOOLS, tool_choice="none") == shown()
    assert shown(tools=TOOLS) != shown()


@pytest.mark.parametrize("parallel", [True, False])
def test_a_model_that_must_call_does(server, parallel):
    choice = {"type": "function", "function": {"name": "g"}}
    for asked, names in (("required", {"f", "g"}), (choice, {"g"})):
        _, calls, reason = chat(
            server, "thinker", tools=TOOLS, tool_choice=asked, parallel_tool_calls=parallel
        )
        assert {name for name, _ in calls} <= names
        assert len(calls) == 1 or (parallel and asked == "required")
        assert reason == "tool_calls"


@pytest.mark.parametrize("family", CALLS)
def test_families_are_forced_in_their_own_syntax(server, family):
    choice = {"type": "function", "function": {"name": "g"}}
    body = {"tools": TOOLS, "parallel_tool_calls": False}
    content, calls, reason = chat(server, family, tool_choice=choice, **body)
    [(name, arguments)] = calls
    assert (content.strip(), name, list(arguments), reason) == ("", "g", ["a"], "tool_calls")


def test_thoughts_come_before_a_forced_call(server):
    answer = post(
        server,
        "/v1/chat/completions",
        model="thinker",
        messages=ASKED,
        tools=TOOLS,
        tool_choice="required",
    ).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning"] == "Hm."
    assert message["tool_calls"]
    assert not message.get("content")


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("think", "thoughts"), [(None, "Hm."), (True, "Hm."), (False, "")])
def test_a_schema_holds_after_thoughts_in_one_pass(server, route, stream, think, thoughts):
    body = {"messages": ASKED} if route == "/api/chat" else {"prompt": "hi"}
    text = post(
        server, route, model="thinker", format=SCHEMA, stream=stream, think=think, **body
    ).text
    objects = [json.loads(line) for line in text.splitlines()]
    parts = [each.get("message", each) for each in objects]
    said = "".join(part.get("content", part.get("response", "")) for part in parts)
    assert list(json.loads(said)) == ["a"]
    assert "".join(part.get("thinking", "") for part in parts).strip() == thoughts
    assert objects[-1]["done_reason"] == "stop"
    assert objects[-1]["eval_count"] > 0


def test_logprobs_of_the_scripted_engine_come_to_the_client(server):
    half = math.log(0.5)
    for stream in (True, False):
        body = {"model": "talker", "prompt": "x", "logprobs": True, "top_logprobs": 2}
        lines = post(server, "/api/generate", **body, stream=stream).text.splitlines()
        tokens = [each for line in lines for each in json.loads(line).get("logprobs", [])]
        assert [each["token"] for each in tokens] == ["caf", "é", " au ", "lait"]
        assert [each["bytes"] for each in tokens][1] == [0xC3, 0xA9]
        assert all(each["logprob"] == pytest.approx(half) for each in tokens)
        assert [each["token"] for each in tokens[0]["top_logprobs"]] == ["caf", "é"]


@pytest.mark.engine
def test_logprobs_of_a_real_model_add_up_to_its_answer(server):
    body = {"model": "demo", "prompt": "What is photosynthesis?", "think": False, "logprobs": True}
    body["options"] = {"temperature": 0, "num_predict": 40}
    answer = post(server, "/api/generate", **body, top_logprobs=20, stream=False).json()
    tokens = answer["logprobs"]
    assert b"".join(bytes(each["bytes"]) for each in tokens).decode() == answer["response"]
    for each in tokens:
        best = each["top_logprobs"]
        assert len(best) == 20
        assert {"token": each["token"], "logprob": each["logprob"], "bytes": each["bytes"]} == best[
            0
        ]
        values = [other["logprob"] for other in best]
        assert values == sorted(values, reverse=True)
        assert values[0] <= 0
        assert sum(map(math.exp, values)) <= 1.0001
    plain = post(server, "/api/generate", **body | {"logprobs": False}, stream=False).json()
    assert plain["response"] == answer["response"]


@pytest.mark.engine
@pytest.mark.parametrize("model", ["demo", "demo-embed"])
def test_tokens_of_a_text_have_that_text(server, model):
    text = "hello world, this is a test"
    tokens = post(server, "/api/tokenize", model=model, text=text).json()["tokens"]
    assert tokens
    again = post(server, "/api/detokenize", model=model, tokens=tokens).json()["text"]
    assert again.replace(" ", "") == text.replace(" ", "")
    special = post(server, "/api/tokenize", model=model, text=text, add_special=True).json()
    assert len(special["tokens"]) >= len(tokens)
    assert special["total_duration"] >= special["load_duration"]

    refused = httpx.post(
        f"{server.url}/api/detokenize", json={"model": model, "tokens": [10**9]}, timeout=TIMEOUT_S
    )
    assert refused.status_code == 400
    assert refused.json() == {"error": "tokens: this model does not have all of these tokens"}


@pytest.mark.engine
def test_a_biased_token_is_chosen_and_has_its_own_logprob(server):
    [token] = post(server, "/api/tokenize", model="demo", text="!").json()["tokens"]
    body = {"model": "demo", "messages": ASKED, "max_tokens": 4, "temperature": 0, "logprobs": True}
    plain = post(server, "/v1/chat/completions", **body, reasoning_effort="none").json()
    biased = post(
        server,
        "/v1/chat/completions",
        **body,
        reasoning_effort="none",
        logit_bias={str(token): 100},
    ).json()
    assert biased["choices"][0]["message"]["content"] == "!!!!"
    assert plain["choices"][0]["message"]["content"] != "!!!!"
    assert biased["choices"][0]["logprobs"]["content"][0]["logprob"] < -5


@pytest.mark.engine
def test_choices_with_a_seed_differ_and_without_a_limit_end(server):
    body = {
        "model": "demo",
        "messages": ASKED,
        "seed": 7,
        "n": 3,
        "temperature": 2,
        "max_tokens": 30,
    }
    choices = post(server, "/v1/chat/completions", **body).json()["choices"]
    said = {json.dumps(choice["message"]) for choice in choices}
    assert len(said) == 3


@pytest.mark.engine
@pytest.mark.parametrize(
    ("num_predict", "count", "reason"), [(0, 0, "length"), (1, 1, "length"), (10**9, None, "stop")]
)
def test_num_predict_limits_an_answer(server, num_predict, count, reason):
    options = {"num_predict": num_predict, "temperature": 0}
    body = {"model": "demo", "messages": ASKED, "stream": False, "options": options}
    answer = post(server, "/api/chat", **body).json()
    assert answer["done_reason"] == reason
    if count is not None:
        assert answer.get("eval_count", 0) == count


@pytest.mark.engine
def test_options_of_the_past_are_accepted_and_logged_once(server):
    options = {"tfs_z": 0.9, "num_predict": 1, "mirostat": 2, "mirostat_tau": 3.0}
    for _ in range(2):
        post(server, "/api/generate", model="demo", prompt="x", options=options)
    assert server.log.count("option 'tfs_z' of model 'demo:latest' does nothing") == 1
    assert "mirostat" not in server.log
