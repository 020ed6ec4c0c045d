"""OpenAI's chat completions and completions through a real server and real workers: the package's
model where it matters what a model does, the scripted engine for what one would do by chance only.
"""

from __future__ import annotations

import json
import math

import httpx
import jsonschema
import pytest

from tests.integration.conftest import running_servers

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TIMEOUT_S = 50
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
        },
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "%s"}}\n</tool_call>'
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}\n{% endfor %}"
)
SPEAKER = {"slots": 4, "num_ctx": 256, "template": TEMPLATE, "parser": "qwen3-thinking"}
SCRIPTS = {
    "calls": {
        **SPEAKER,
        "tokens": ["hm ", "ok", "</think>", "Both. ", CALL % "Paris", CALL % "Rome"],
        "capabilities": ["tools", "thinking"],
    },
    "plain": {"tokens": "Once upon a time", "slots": 4},
    "endless": {"tokens": ["x "], "repeat": True, "tokens_per_second": 50, "slots": 4},
    "crashing": {"tokens": ["one ", "two "], "repeat": True, "crash_at": 3, "slots": 1},
}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory, engine_cache):
    with running_servers(tmp_path_factory.mktemp("openai"), engine_cache) as start:
        yield start(scripts=SCRIPTS, OLLAMA_NUM_PARALLEL="4")


def ask(server, path=CHAT, **fields):
    asked = {"prompt": "hi"} if path == COMPLETIONS else {"messages": said("hi")}
    answer = httpx.post(f"{server.url}{path}", json=asked | fields, timeout=TIMEOUT_S)
    return answer.raise_for_status().json()


def stream(server, path=CHAT, **fields):
    """The objects of a stream, and whether ``[DONE]`` ended it."""
    asked = {"prompt": "hi"} if path == COMPLETIONS else {"messages": said("hi")}
    body = asked | {"stream": True} | fields
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S).raise_for_status()
    events = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
    is_done = events[-1] == "[DONE]"
    return [json.loads(event) for event in events[: len(events) - is_done]], is_done


def said(text):
    return [{"role": "user", "content": text}]


def deltas(chunks):
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


# ------------------------------------------------------------------ scripted answers


def test_parallel_calls_have_numbers_and_ids_of_their_own(scripted):
    chunks, is_done = stream(scripted, model="calls", tools=[WEATHER], messages=said("where?"))

    assert is_done
    calls = [call for delta in deltas(chunks) for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    cities = [json.loads(call["function"]["arguments"]) for call in calls]
    assert cities == [{"city": "Paris"}, {"city": "Rome"}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "".join(each.get("reasoning", "") for each in deltas(chunks)) == "hm ok"
    assert "".join(each.get("content", "") for each in deltas(chunks)).strip() == "Both."


def test_without_parallel_calls_the_answer_has_one(scripted):
    answer = ask(scripted, model="calls", tools=[WEATHER], parallel_tool_calls=False)

    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] in {2, 3}


def test_choices_are_computed_together_and_numbered(scripted):
    chunks, _ = stream(scripted, model="plain", n=3, stream_options={"include_usage": True})

    texts = dict.fromkeys(range(3), "")
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert set(texts.values()) == {"Once upon a time"}
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 15


def test_whoever_leaves_frees_the_slots_of_all_choices(scripted):
    body = {"model": "endless", "messages": said("hi"), "stream": True, "n": 4}
    with httpx.stream("POST", scripted.url + CHAT, json=body, timeout=TIMEOUT_S) as answer:
        next(answer.iter_bytes())

    scripted.wait_until(
        lambda: scripted.metric("ollama_requests_running", model="endless:latest") == 0,
        "freed the slots",
    )


def test_a_worker_that_dies_in_the_middle_is_an_error_event(scripted):
    chunks, is_done = stream(scripted, model="crashing")

    assert not is_done
    assert "unexpectedly stopped" in chunks[-1]["error"]["message"]
    assert chunks[-1]["error"]["type"] == "api_error"


def test_a_list_of_prompts_is_answered_in_its_order(scripted):
    answer = ask(scripted, COMPLETIONS, model="plain", prompt=["a", "b"], echo=True, max_tokens=1)

    assert [each["text"] for each in answer["choices"]] == ["aOnce", "bOnce"]
    assert [each["finish_reason"] for each in answer["choices"]] == ["length", "length"]


# ------------------------------------------------------------------ the package's model


@pytest.mark.engine
def test_a_stream_says_what_the_whole_answer_says(demo_server):
    system = {"role": "developer", "content": "You are helpful. " * 30}  # worth to be reused
    asked = [system, *said("What is the capital of France?")]
    fields = {"model": "demo", "messages": asked, "max_tokens": 60}

    whole = ask(demo_server, **fields, temperature=0)
    chunks, is_done = stream(
        demo_server, **fields, temperature=0, stream_options={"include_usage": True}
    )

    message = whole["choices"][0]["message"]
    assert is_done
    assert "".join(each.get("content", "") for each in deltas(chunks)) == message["content"]
    assert "".join(each.get("reasoning", "") for each in deltas(chunks)) == message["reasoning"]
    assert message["reasoning"] == message["reasoning_content"]
    usage = chunks[-1]["usage"]
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    details = usage["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < usage["completion_tokens"]


@pytest.mark.engine
def test_without_effort_there_are_no_thoughts(demo_server):
    answer = ask(demo_server, model="demo", reasoning_effort="none", temperature=0)

    assert "reasoning" not in answer["choices"][0]["message"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.engine
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": WEATHER["function"]}]
)
def test_a_tool_can_be_forced(demo_server, choice):
    fields = {"tools": [WEATHER], "tool_choice": choice, "temperature": 0}

    answer = ask(demo_server, model="demo", messages=said("Weather in Paris?"), **fields)

    (call, *_) = answer["choices"][0]["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    jsonschema.validate(arguments, WEATHER["function"]["parameters"])
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.engine
def test_a_schema_is_obeyed(demo_server):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "size": {"enum": [1, 2]}},
        "required": ["name", "size"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}

    answer = ask(demo_server, model="demo", response_format=asked, temperature=0)

    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), schema)


@pytest.mark.engine
def test_logprobs_are_those_of_the_answer(demo_server):
    fields = {"reasoning_effort": "none", "temperature": 0, "max_tokens": 5}

    answer = ask(demo_server, model="demo", logprobs=True, top_logprobs=3, **fields)

    tokens = answer["choices"][0]["logprobs"]["content"]
    assert "".join(each["token"] for each in tokens) == answer["choices"][0]["message"]["content"]
    for each in tokens:
        assert bytes(each["bytes"]).decode() == each["token"]
        assert len(each["top_logprobs"]) == 3
        assert each["top_logprobs"][0]["logprob"] == pytest.approx(each["logprob"])
        assert math.exp(each["logprob"]) <= 1


@pytest.mark.engine
def test_a_bias_forbids_a_token(demo_server):
    fields = {"model": "demo", "prompt": "What is", "temperature": 0, "max_tokens": 1}
    tokens = httpx.post(
        f"{demo_server.url}/api/tokenize",
        json={
            "model": "demo",
            "content": ask(demo_server, COMPLETIONS, **fields)["choices"][0]["text"],
        },
        timeout=TIMEOUT_S,
    ).json()["tokens"]

    other = ask(demo_server, COMPLETIONS, **fields, logit_bias={str(tokens[0]): -100})

    assert (
        other["choices"][0]["text"] != ask(demo_server, COMPLETIONS, **fields)["choices"][0]["text"]
    )


@pytest.mark.engine
def test_token_ids_are_a_prompt(demo_server):
    text = "The capital of"
    tokens = httpx.post(
        f"{demo_server.url}/api/tokenize",
        json={"model": "demo", "content": text},
        timeout=TIMEOUT_S,
    ).json()["tokens"]
    fields = {"model": "demo", "temperature": 0, "max_tokens": 8}

    answer = ask(demo_server, COMPLETIONS, prompt=[tokens, text], **fields)

    assert answer["choices"][0]["text"] == answer["choices"][1]["text"]


@pytest.mark.engine
def test_an_empty_prompt_begins_a_text(demo_server):
    answer = ask(demo_server, COMPLETIONS, model="demo", prompt="", max_tokens=3, seed=1)

    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.engine
def test_a_seed_does_not_give_the_same_answer_to_every_choice(demo_server):
    fields = {"model": "demo", "prompt": "What", "max_tokens": 6, "seed": 3, "temperature": 2}

    choices = ask(demo_server, COMPLETIONS, **fields, n=3)["choices"]

    assert len({each["text"] for each in choices}) > 1
