"""``/v1/completions`` and ``/v1/models``: raw prompts, the older shape of logprobs, every refusal."""

# ruff: noqa: E501  # one refusal per line reads as a table
from __future__ import annotations

import json

import msgspec
import pytest

from ollama_async.core.conversation import (
    Logprobs,
    Message,
    Thought,
    TokenLogprob,
    ToolCall,
    ToolFunction,
)
from ollama_async.core.errors import WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway.routes import build_application
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import make_post

PATH = "/v1/completions"


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["insert"]), "a/b:c": Script()})


@pytest.fixture
def post(session, url):
    return make_post(session, url + PATH, {"model": "m", "prompt": "hi"})


def answer_ok(job):
    job.start().send("o", "k").end()


# -- answers --------------------------------------------------------------------------------------


async def test_an_answer_is_one_object(post, backend):
    backend.script = answer_ok

    response, body = await post()

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "text_completion",
        "model": "m",
        "system_fingerprint": "fp_ollama",
        "choices": [{"text": "ok", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_a_stream_has_the_same_objects(post, backend):
    backend.script = answer_ok

    _, events = await post(stream=True, stream_options={"include_usage": True})

    *chunks, counts = map(json.loads, events[:-1])
    assert events[-1] == "[DONE]"
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["ok", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert (counts["choices"], counts["usage"]["total_tokens"]) == ([], 9)
    assert not any("usage" in chunk for chunk in chunks)


async def test_thinking_is_text(post, backend):
    """Of a model that thinks although the prompt has no chat format, nothing is lost."""
    call = ToolCall(ToolFunction("f"))
    backend.script = lambda job: job.start().part(Thought("hm "), call).send("ok").end()

    _, body = await post()
    _, events = await post(stream=True)

    assert body["choices"][0]["text"] == "hm ok"
    assert [json.loads(each)["choices"][0]["text"] for each in events[:2]] == ["hm ", "ok"]


async def test_prompts_are_numbered_and_may_be_part_of_the_answers(post, backend):
    backend.script = lambda job: job.start().send(job.job.task.prompt.raw.upper()).end()
    fields = {"prompt": ["a", "b"], "n": 2, "echo": True}

    _, body = await post(**fields)
    _, events = await post(**fields, stream=True)

    assert [(each["index"], each["text"]) for each in body["choices"]] == [
        (0, "aA"),
        (1, "aA"),
        (2, "bB"),
        (3, "bB"),
    ]
    assert body["usage"] == {
        "prompt_tokens": 14,
        "completion_tokens": 8,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    texts = ["", "", "", ""]
    for event in events[:-1]:
        (choice,) = json.loads(event)["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == ["aA", "aA", "bB", "bB"]


TOKENS = [
    TokenLogprob("é".encode(), -0.25, [("é".encode(), -0.25), (b"x", -2.0)]),
    TokenLogprob(b"\xe2\x82", -0.5, [(b"y", -0.1)]),
    TokenLogprob(b"\xac", -0.75, []),
    TokenLogprob(b"!", -1.0, []),
]
LOGPROBS = {
    "tokens": ["é", "bytes:\\xe2\\x82", "bytes:\\xac", "!"],
    "token_logprobs": [-0.25, -0.5, -0.75, -1.0],
    "top_logprobs": [
        {"é": -0.25, "x": -2.0},
        {"y": -0.1, "bytes:\\xe2\\x82": -0.5},
        {"bytes:\\xac": -0.75},
        {"!": -1.0},
    ],
    "text_offset": [0, 1, 1, 2],
}


async def test_logprobs_have_the_older_shape(post, backend):
    def speak(job):
        job.start()
        for token, text in zip(TOKENS, ["é", "", "€", "!"], strict=True):
            job.part(Logprobs([token]))
            if text:
                job.send(text)
        job.end()

    backend.script = speak

    _, body = await post(logprobs=2)
    _, events = await post(logprobs=2, stream=True)

    assert body["choices"][0]["text"] == "é€!"
    assert body["choices"][0]["logprobs"] == LOGPROBS
    chunks = [json.loads(event)["choices"][0] for event in events[:-2]]
    assert "".join(chunk["text"] for chunk in chunks) == "é€!"
    joined = {
        name: [each for chunk in chunks for each in chunk["logprobs"][name]] for name in LOGPROBS
    }
    assert joined == LOGPROBS
    assert (await backend.job()).job.task.logprobs == 2


async def test_zero_logprobs_are_those_of_the_answer_alone(post, backend):
    backend.script = answer_ok

    await post(logprobs=0)
    await post()

    assert (await backend.job()).job.task.logprobs == 0
    assert (await backend.job()).job.task.logprobs == -1


# -- what reaches the queue -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("hi", [("hi", [])]),
        ("", [("", [])]),
        (None, [("", [])]),
        ([""], [("", [])]),
        (["a", "b"], [("a", []), ("b", [])]),
        ([1, 2], [("", [1, 2])]),
        ([[1, 2], [3]], [("", [1, 2]), ("", [3])]),
        (["a", [3]], [("a", []), ("", [3])]),
    ],
)
async def test_prompts_are_texts_or_token_ids(post, backend, prompt, prompts):
    backend.script = answer_ok

    response, _ = await post(prompt=prompt)

    assert response.status == 200
    asked = [(await backend.job()).job.task.prompt for _ in prompts]
    assert [(each.raw, each.context) for each in asked] == prompts


async def test_an_empty_prompt_is_completed_whatever_the_keep_alive(post, backend):
    """Ollama would unload the model."""
    backend.script = answer_ok

    _, body = await post(prompt="", keep_alive=0)

    assert body["choices"][0]["text"] == "ok"
    assert backend.unloaded == []


async def test_a_suffix_takes_the_template_for_it(post, backend):
    backend.script = answer_ok

    await post(prompt="a", suffix="b")

    prompt = (await backend.job()).job.task.prompt
    assert (prompt.raw, prompt.suffix) == (None, "b")
    assert prompt.messages == [Message("user", "a")]


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, {"temperature": 1.0, "top_p": 1.0, "num_predict": -1}),
        ({"max_tokens": 5, "stop": "x", "seed": 1}, {"num_predict": 5, "stop": ["x"], "seed": 1}),
        ({"logit_bias": {"3": 1}}, {"logit_bias": {3: 1.0}}),
        ({"options": {"min_p": 0.5}, "top_k": 1}, {"min_p": 0.5, "top_k": 1}),
        ({"best_of": 1, "user": "u", "suffix": ""}, {}),
    ],
)
async def test_fields_reach_the_sampler(post, backend, fields, sampling):
    backend.script = answer_ok

    response, _ = await post(**fields)

    assert response.status == 200
    asked = (await backend.job()).job.task
    assert {name: getattr(asked.sampling, name) for name in sampling} == sampling
    assert asked.prompt.raw == "hi"


# -- refusals -------------------------------------------------------------------------------------

PROMPT = "prompt must be a text, a list of token ids, or a list of these"
REFUSED = [
    ({"model": ""}, "model is required"),
    ({"options": {"stop": "x"}}, 'option "stop" must be of type array'),
    ({"prompt": []}, "prompt: the list is empty"),
    ({"prompt": [[]]}, PROMPT),
    ({"prompt": [1, "a"]}, PROMPT),
    ({"prompt": [-1]}, PROMPT),
    ({"prompt": [1.5]}, PROMPT),
    ({"prompt": [True]}, PROMPT),
    ({"prompt": [[[1]]]}, PROMPT),
    ({"prompt": ["a"] * 129}, "n: a response has at most 128 choices"),
    ({"prompt": ["a"] * 10, "n": 13}, "n: a response has at most 128 choices"),
    ({"n": 0}, "n must be at least 1"),
    ({"best_of": 3}, "best_of is not supported: use n"),
    ({"best_of": 0}, "best_of is not supported: use n"),
    ({"logprobs": 6}, "logprobs must be between 0 and 5"),
    ({"logprobs": -1}, "logprobs must be between 0 and 5"),
    ({"echo": True, "logprobs": 1}, "echo is not supported with logprobs: prompts have none"),
    ({"echo": True, "prompt": [1]}, "echo is not supported with token ids"),
    (
        {"echo": True, "n": 2, "prompt": "x" * 600_000},
        "echo: more than 1048576 characters in all choices",
    ),
    ({"suffix": "x", "prompt": [1]}, "suffix is not supported with token ids"),
    ({"model": "a/b:c", "suffix": "x"}, "registry.ollama.ai/a/b:c does not support insert"),
    (
        {"prompt": 5},
        "json: cannot unmarshal number into Go struct field CompletionRequest.prompt of type string",
    ),
]


@pytest.mark.parametrize(("fields", "text"), REFUSED, ids=lambda each: str(each)[:40])
async def test_what_cannot_be_done_is_a_400_that_names_it(post, backend, fields, text):
    response, body = await post(**fields)

    assert response.status == 400
    assert body["error"]["message"] == text
    assert backend.jobs.empty()


async def test_an_error_in_the_middle_ends_the_stream(post, backend):
    backend.script = lambda job: job.start().send("a").fail(WorkerDied("gone"))

    _, events = await post(stream=True)

    assert json.loads(events[-1])["error"]["message"] == "gone"


# -- models ---------------------------------------------------------------------------------------


async def test_models_are_listed(session, url):
    async with session.get(f"{url}/v1/models") as response:
        body = await response.json()

    assert [each.pop("created") > 1_700_000_000 for each in body["data"]] == [True, True]
    assert body == {
        "object": "list",
        "data": [
            {"id": "m:latest", "object": "model", "owned_by": "library"},
            {"id": "a/b:c", "object": "model", "owned_by": "a"},
        ],
    }


@pytest.mark.parametrize(
    "name",
    ["m", "M:latest", "library/m", "registry.ollama.ai/library/m:latest", "a/b:c", "a%2Fb%3Ac"],
)
async def test_a_model_has_the_name_that_it_is_asked_for(session, url, name):
    async with session.get(f"{url}/v1/models/{name}") as response:
        body = await response.json()

    assert response.status == 200
    assert body["id"] == name.replace("%2F", "/").replace("%3A", ":")
    assert body["object"] == "model"


@pytest.mark.parametrize("name", ["nope", "a/b/c/d/e", "%00", "x" * 2000, "..%2f.."])
async def test_an_unknown_model_is_an_error(session, url, name):
    async with session.get(f"{url}/v1/models/{name}") as response:
        body = await response.json()

    assert response.status in {400, 404}
    assert body["error"]["type"] in {"not_found_error", "invalid_request_error"}


async def test_no_models_are_an_empty_list(session, serve, dependencies, store):
    empty = build_application(msgspec.structs.replace(dependencies, catalog=Catalog(store)))
    async with session.get(f"{await serve(empty)}/v1/models") as response:
        assert await response.json() == {"object": "list", "data": []}
