"""``/v1/chat/completions``: what reaches the queue, what is on the wire, and every refusal."""

# ruff: noqa: E501  # one refusal per line reads as a table

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading

import msgspec
import pytest

from ollama_async.api import decode, openai
from ollama_async.core.conversation import (
    Logprobs,
    Message,
    TokenLogprob,
    ToolCall,
    ToolFunction,
)
from ollama_async.core.errors import BadRequest, Busy, ContextExceeded, LoadFailed, WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway.body import BODY_PROCESSOR
from ollama_async.gateway.handlers import generation
from ollama_async.gateway.handlers.openai_messages import read_messages
from ollama_async.gateway.job_builder import build_chat_job
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import (
    DEADLINE_S,
    answer_ok,
    data_of_events,
    everything,
    make_post,
)

PATH = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "hi"}]
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": [True, None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture
def catalog(store) -> Catalog:
    able = Script(capabilities=["tools", "thinking", "vision", "audio"])
    return Catalog(store, {"m": able, "plain": Script()})


@pytest.fixture
def post(session, url):
    return make_post(session, url + PATH, {"model": "m", "messages": ASKED})


say_everything = everything(CALLS)


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "is_long"), [(2, False), (128, True)])
async def test_many_choices_are_built_in_a_thread(post, backend, monkeypatch, count, is_long):
    threads = []

    def build(*args):
        threads.append(threading.current_thread())
        return build_chat_job(*args)

    monkeypatch.setattr(generation, "build_chat_job", build)
    backend.script = answer_ok
    await post(n=count, seed=1)
    assert len(threads) == count
    assert (threading.main_thread() not in threads) == is_long


async def test_an_answer_is_one_object(post, backend):
    backend.script = say_everything

    response, body = await post()

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": "m",
        "system_fingerprint": "fp_ollama",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "so on",
                    "reasoning": "hm",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "call_00000000",
                            "index": 0,
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"b":1,"a":[true,null]}'},
                        },
                        {
                            "id": "call_11111111",
                            "index": 1,
                            "type": "function",
                            "function": {"name": "g", "arguments": "{}"},
                        },
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_a_stream_has_the_role_first_and_the_reason_last(post, backend):
    backend.script = say_everything

    response, events = await post(stream=True)

    assert response.headers["Content-Type"] == "text/event-stream"
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert not any("usage" in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice["delta"] for choice in choices]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1] == {"reasoning": "hm", "reasoning_content": "hm"}
    assert deltas[2] == {"content": "so on"}
    assert [call["index"] for call in deltas[3]["tool_calls"]] == [0, 1]
    assert deltas[4:] == [{}]
    assert [choice["finish_reason"] for choice in choices] == [*[None] * 4, "tool_calls"]


async def test_usage_is_the_last_event_if_it_is_requested(post, backend):
    backend.script = answer_ok

    _, events = await post(stream=True, stream_options={"include_usage": True})

    last = json.loads(events[-2])
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_ids_are_unique(post, backend):
    backend.script = answer_ok

    ids = {(await post())[1]["id"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize(
    ("ends", "reason"),
    [("stop", "stop"), ("length", "length")],
)
async def test_an_answer_of_no_tokens_is_an_answer(post, backend, ends, reason):
    backend.script = lambda job: job.start().end(ends)

    _, body = await post()
    _, events = await post(stream=True)

    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": ""}
    assert choice["finish_reason"] == reason
    first, last = (json.loads(event)["choices"][0] for event in events[:-1])
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert last == {"index": 0, "delta": {}, "finish_reason": reason}


async def test_calls_that_were_cut_do_not_end_with_tool_calls(post, backend):
    backend.script = lambda job: job.start().part(CALLS[0]).end("length")

    _, body = await post()

    assert body["choices"][0]["finish_reason"] == "length"


async def test_logprobs_are_given_with_bytes(post, backend):
    parts = TokenLogprob(b"\xc3", -0.5, [(b"\xc3", -0.5), (b"a", -1.5)])
    backend.script = lambda job: job.start().part(Logprobs([parts])).send("x").end()
    expected = {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [0xC3],
        "top_logprobs": [
            {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]},
            {"token": "a", "logprob": -1.5, "bytes": [97]},
        ],
    }

    _, body = await post(logprobs=True, top_logprobs=2)
    _, events = await post(logprobs=True, top_logprobs=2, stream=True)

    assert body["choices"][0]["logprobs"] == {"content": [expected]}
    with_logprobs = json.loads(events[1])["choices"][0]
    assert with_logprobs["delta"] == {"content": "x"}
    assert with_logprobs["logprobs"] == {"content": [expected]}
    assert (await backend.job()).job.task.logprobs == 2


async def test_logprobs_without_alternatives_have_an_empty_list(post, backend):
    backend.script = lambda job: job.start().part(Logprobs([TokenLogprob(b"a", 0.0)])).end()

    _, body = await post(logprobs=True)

    assert body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert (await backend.job()).job.task.logprobs == 0


# -- several choices ------------------------------------------------------------------------------


async def test_choices_are_jobs_and_their_deltas_have_an_index(post, backend):
    texts = iter(["one", "two", "three"])
    backend.script = lambda job: job.start().send(next(texts)).end()

    _, body = await post(n=3)

    assert [(each["index"], each["message"]["content"]) for each in body["choices"]] == [
        (0, "one"),
        (1, "two"),
        (2, "three"),
    ]
    assert body["usage"]["prompt_tokens"] == 7
    assert body["usage"]["completion_tokens"] == 6

    texts = iter(["one", "two", "three"])
    _, events = await post(n=3, stream=True)
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert [each["index"] for each in choices if "role" in each["delta"]] == [0, 1, 2]
    said = {
        each["index"]: each["delta"]["content"] for each in choices if each["delta"].get("content")
    }
    assert said == {0: "one", 1: "two", 2: "three"}
    assert [each["index"] for each in choices if each["finish_reason"]] == [0, 1, 2]


async def test_a_seed_gives_each_choice_another(post, backend):
    backend.script = answer_ok

    await post(n=3, seed=40)

    assert [(await backend.job()).job.task.sampling.seed for _ in range(3)] == [40, 41, 42]


async def test_without_a_seed_choices_share_their_task(post, backend):
    """A hundred choices of a long conversation take the memory of one."""
    submit, tasks = backend.submit, []
    backend.submit = lambda job, sink: (tasks.append(job.task), submit(job, sink))[1]
    backend.script = answer_ok

    await post(n=100)

    assert len(tasks) == 100
    assert len(set(map(id, tasks))) == 1


@pytest.mark.parametrize("field", ["reasoning_effort", "tool_choice"])
async def test_an_error_in_a_large_body_quotes_what_was_sent(post, monkeypatch, field):
    monkeypatch.setattr(decode, "TEXT_LIMIT_BYTES", 100_000)
    value = base64.b64encode(b"some letters " * 10_000).decode()

    response, body = await post(**{field: value})

    assert response.status == 400
    assert f"{value[:24]}..." in body["error"]["message"]


async def test_tasks_of_choices_count_as_the_body(post, application, backend):
    application[BODY_PROCESSOR].budget.client_limit_bytes = 4 << 20
    backend.script = answer_ok
    messages = [{"role": "user", "content": "x" * 100_000}]

    few, _ = await post(messages=messages, n=16, seed=1)
    same, _ = await post(messages=messages, n=64)
    many, body = await post(messages=messages, n=64, seed=1)

    assert (few.status, same.status, many.status) == (200, 200, 503)
    assert "large requests" in body["error"]["message"]


async def test_choices_are_refused_before_they_take_much_memory(post, monkeypatch):
    monkeypatch.setattr(generation, "BODY_LIMIT_BYTES", 4 << 20)
    messages = [{"role": "user", "content": "x" * 100_000}]

    response, body = await post(messages=messages, n=64, seed=1)

    assert response.status == 413
    assert body["error"]["message"] == "all choices together are over the limit of 4194304 bytes"


@pytest.mark.parametrize(("n", "text"), [(0, "at least 1"), (-1, "at least 1"), (129, "128")])
async def test_a_response_has_a_bounded_number_of_choices(post, n, text):
    response, body = await post(n=n)

    assert response.status == 400
    assert text in body["error"]["message"]


async def test_one_choice_that_fails_ends_the_response(post, backend):
    backend.script = lambda job: job.start().send("a")
    asking = post(n=2, stream=True)

    def fail_the_second(job, ended=[]):  # noqa: B006
        job.start().send("a")
        ended.append(job)
        if len(ended) == 2:
            job.fail(WorkerDied("gone"))

    backend.script = fail_the_second
    _, events = await asking

    assert json.loads(events[-1])["error"]["message"] == "gone"
    assert (await backend.job()).cancelled.is_set()


@pytest.mark.parametrize("pieces", [["a"], []])
async def test_the_client_learns_at_once_that_a_choice_has_ended(session, url, backend, pieces):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2, "stream": True}
    asking = asyncio.ensure_future(session.post(f"{url}/v1/chat/completions", json=body))
    first, second = await backend.job(), await backend.job()
    first.start().send("a")
    async with await asking as response:
        await read_until(response, '"content":"a"')

        second.start().send(*pieces).end("length")
        ended = (await read_until(response, '"finish_reason":"length"'))["choices"][0]
        assert (ended["index"], ended["delta"]) == (1, {})

        first.send("b").end()
        rest = data_of_events(await response.text())
    said, end, done = rest
    assert json.loads(said)["choices"][0]["delta"] == {"content": "b"}
    assert json.loads(end)["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


async def read_until(response, text):
    """The first event that contains ``text``; what precedes it is dropped."""
    async with asyncio.timeout(DEADLINE_S):
        while text not in (event := await response.content.readuntil(b"\n\n")).decode():
            pass
    return json.loads(event.removeprefix(b"data: "))


async def test_a_choice_that_fails_after_another_has_ended_gives_one_error(post, backend):
    asking = asyncio.ensure_future(post(n=3, stream=True))
    jobs = [await backend.job() for _ in range(3)]
    jobs[0].start().send("a").end()
    for job in jobs[1:]:
        job.start().fail(WorkerDied("gone"))
    _, events = await asking

    choices = [json.loads(event).get("choices", [{}])[0] for event in events]
    assert [each["index"] for each in choices if each.get("finish_reason")] == [0]
    assert [index for index, event in enumerate(events) if "error" in json.loads(event)] == [
        len(events) - 1
    ]


async def test_a_failure_after_an_empty_choice_has_a_status(post, backend):
    asking = asyncio.ensure_future(post(n=2, stream=True))
    first, second = await backend.job(), await backend.job()
    first.start().end()
    await asyncio.sleep(0)
    second.start().fail(WorkerDied("gone"))
    response, body = await asking

    assert (response.status, body["error"]["message"]) == (500, "gone")


# -- what reaches the queue -----------------------------------------------------------------------


async def test_defaults_are_openais_not_ollamas(ask):
    inference = await ask()

    assert inference.sampling.temperature == 1.0
    assert inference.sampling.top_p == 1.0
    assert inference.sampling.top_k == 40
    assert inference.sampling.num_predict == -1
    assert inference.format is None
    assert inference.logprobs == -1
    assert inference.prompt.tool_choice == "auto"
    assert inference.prompt.parallel_tool_calls
    assert inference.prompt.think is True


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_completion_tokens": 6}, {"num_predict": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"num_predict": 6}),
        ({"max_tokens": 0}, {"num_predict": 0}),
        ({"seed": 7}, {"seed": 7}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"stop": []}, {"stop": []}),
        (
            {"frequency_penalty": -1, "presence_penalty": 1.5},
            {"frequency_penalty": -1.0, "presence_penalty": 1.5},
        ),
        ({"logit_bias": {"5": -100, "0": 1.5}}, {"logit_bias": {5: -100.0, 0: 1.5}}),
        ({"top_k": 3, "min_p": 0.1}, {"top_k": 3, "min_p": 0.1}),
        ({"options": {"temperature": 0.3, "top_k": 2}}, {"temperature": 0.3, "top_k": 2}),
        ({"options": {"temperature": 0.3}, "temperature": 0.4}, {"temperature": 0.4}),
        ({"options": {"num_predict": 3}, "max_tokens": None}, {"num_predict": 3}),
    ],
)
async def test_fields_reach_the_sampler(ask, fields, sampling):
    inference = await ask(**fields)

    assert {name: getattr(inference.sampling, name) for name in sampling} == sampling


async def test_keep_alive_and_num_ctx_are_ollamas(post, backend):
    backend.script = answer_ok

    await post(keep_alive="1h", options={"num_ctx": 64})

    job = (await backend.job()).job
    assert (job.keep_alive_s, job.load_options.num_ctx) == (3600, 64)


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning_effort": "ultra"}, "max"),
        ({"reasoning_effort": ""}, True),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, "high"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
        ({"reasoning": {}}, True),
        ({"think": False}, False),
        ({"think": "low"}, "low"),
        ({"think": False, "reasoning_effort": "high"}, "high"),
    ],
)
async def test_effort_says_how_much_to_think(ask, fields, think):
    assert (await ask(**fields)).prompt.think == think


@pytest.mark.parametrize(
    ("response_format", "form"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}},
            {"type": "null"},
        ),
        (
            {"type": "json_schema", "json_schema": {"strict": True, "schema": {"a": 1, "b": 2}}},
            {"a": 1, "b": 2},
        ),
        (None, None),
    ],
)
async def test_the_response_format_constrains(ask, response_format, form):
    assert (await ask(response_format=response_format)).format == form


@pytest.mark.parametrize(
    ("choice", "given"),
    [
        ("auto", "auto"),
        ("required", "required"),
        (None, "auto"),
        ({"type": "function", "function": {"name": "f"}}, "f"),
    ],
)
async def test_the_tool_choice_reaches_the_prompt(ask, choice, given):
    prompt = (await ask(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)).prompt

    assert (prompt.tool_choice, prompt.tools) == (given, [TOOL])
    assert not prompt.parallel_tool_calls


def allowed(mode, *names):
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_the_choice_may_be_a_part_of_the_tools(ask, mode):
    other = {"type": "function", "function": {"name": "g"}}

    prompt = (await ask(tools=[other, TOOL], tool_choice=allowed(mode, "f"))).prompt

    assert (prompt.tools, prompt.tool_choice) == ([TOOL], mode)


async def test_with_the_choice_none_there_are_no_tools(ask):
    assert (await ask(tools=[TOOL], tool_choice="none")).prompt.tools == []


IGNORED = {
    "user": "u",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "verbosity": "low",
    "stream_options": {"include_usage": True},
    "modalities": ["text"],
    "unheard_of": [1],
    "tools": [],
    "tool_choice": "none",
}


@pytest.mark.parametrize("name", IGNORED)
async def test_what_clients_send_routinely_is_accepted(ask, name):
    await ask(**{name: IGNORED[name]})


async def test_the_prompt_can_be_looked_at(post, backend):
    backend.script = lambda job: job.start().send("the prompt").end()

    _, body = await post(_debug_render_only=True, stream=True)

    assert body["_debug_info"] == {"rendered_template": "the prompt"}
    assert body["choices"][0]["message"]["content"] == ""
    assert (await backend.job()).job.task.renders_only


# -- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "read"),
    [
        ([{"role": "Developer", "content": "d"}], [Message("developer", "d")]),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                }
            ],
            [Message("user", "a\nb")],
        ),
        ([{"role": "user", "content": []}], [Message("user", "")]),
        ([{"role": "user", "content": "x", "name": "ada"}], [Message("user", "x")]),
        (
            [{"role": "assistant", "content": "x", "reasoning": "r"}],
            [Message("assistant", "x", "r")],
        ),
        (
            [{"role": "assistant", "content": None, "reasoning_content": "r"}],
            [Message("assistant", "", "r")],
        ),
        (
            [{"role": "assistant", "content": None, "refusal": "no"}],
            [Message("assistant", "no")],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [Message("assistant", "no")],
        ),
    ],
)
async def test_messages_are_read(ask, messages, read):
    assert (await ask(messages=messages)).prompt.messages == read


async def test_calls_and_their_results_are_read(ask):
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "1"}]},
        {"role": "tool", "tool_call_id": "c3", "content": "3", "name": "h"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "4"},
    ]

    _, asked, *results = (await ask(messages=messages)).prompt.messages

    assert [(call.id, call.function.name) for call in asked.tool_calls] == [
        ("c1", "f"),
        ("c2", "g"),
    ]
    assert [list(call.function.arguments) for call in asked.tool_calls] == [["b", "a"], []]
    assert [call.function.index for call in asked.tool_calls] == [0, 1]
    assert [(each.tool_name, each.tool_call_id) for each in results] == [
        ("g", "c2"),
        ("f", "c1"),
        ("h", "c3"),
        ("", ""),
        ("f", ""),
    ]
    assert results[3].tool_calls[0].function.name == "f"


def image(number):
    data = base64.b64encode(b"image %d" % number).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def text(words):
    return {"type": "text", "text": words}


SOUND = {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}}


@pytest.mark.parametrize(
    ("content", "joined"),
    [
        ([image(0), text("a")], "a"),
        ([text("a"), image(0)], "a\n[img]"),
        ([image(0), text("a"), image(1)], "[img]\na\n[img]"),
        ([text("a"), image(0), text("b"), image(1), text("c")], "a\n[img]\nb\n[img]\nc"),
        ([text("see [img]"), image(0)], "see [img]"),
        ([image(0)], ""),
    ],
)
def test_images_stand_where_the_client_put_them(content, joined):
    messages = [openai.Message(role="user", content=[as_part(each) for each in content])]

    (message,) = read_messages(messages)

    assert message.content == joined
    assert message.images == [b"image 0", b"image 1"][: len(message.images)]


def as_part(part):
    return msgspec.convert(part, openai.ContentPart)


@pytest.mark.slow
async def test_images_may_be_larger_than_all_texts(session, url, backend):
    backend.script = answer_ok
    large, small = bytes(range(256)) * 30_000, b"small"
    parts = [
        text("both"),
        *(
            {
                "type": "image_url",
                "image_url": f"data:image/png;base64,{base64.b64encode(each).decode()}",
            }
            for each in (large, small)
        ),
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}], "n": 2, "seed": 1}

    async with session.post(url + PATH, data=io.BytesIO(json.dumps(body).encode())) as response:
        assert response.status == 200

    for _ in range(2):
        (message,) = (await backend.job()).job.task.prompt.messages
        assert message.images == [large, small]
        assert message.content == "both\n[img]\n[img]"


def test_sounds_are_images_too():
    messages = [openai.Message(role="user", content=[as_part(SOUND), as_part(text("a"))])]

    (message,) = read_messages(messages)

    assert (message.content, message.images) == ("a", [b"\0\1\2"])


# -- refusals -------------------------------------------------------------------------------------


def parts(*each):
    return {"messages": [{"role": "user", "content": list(each)}]}


def call(arguments):
    function = {"name": "f", "arguments": arguments}
    return {"messages": [{"role": "assistant", "tool_calls": [{"function": function}]}]}


BAD_ARGUMENTS = "invalid tool call arguments"
URL = "image URLs are not currently supported, please use base64 encoded data instead"
EFFORT = (
    'invalid reasoning value: "x" (must be "minimal", "low", "medium", "high", "xhigh", "ultra",'
    ' "max", or "none")'
)
REFUSED = [
    ({"messages": []}, "[] is too short - 'messages'"),
    ({"messages": None}, "[] is too short - 'messages'"),
    ({"model": ""}, "model is required"),
    ({"messages": [{"role": "user"}]}, "invalid message content type: <nil>"),
    ({"messages": [{"role": "user", "content": 5}]}, "invalid message content type: float64"),
    (parts({"type": "video"}), "invalid message format"),
    (parts({"type": "image_url"}), "invalid message format"),
    (parts({"type": "input_audio"}), "invalid message format"),
    (parts({"type": "image_url", "image_url": {"url": "https://x/y.png"}}), URL),
    (parts({"type": "image_url", "image_url": "http://x/y.png"}), URL),
    (parts({"type": "image_url", "image_url": {"url": "y.png"}}), "invalid image input"),
    (parts({"type": "input_audio", "input_audio": {"data": "?"}}), "illegal base64 data at input byte 0"),
    (call("x"), BAD_ARGUMENTS),
    (call("[]"), BAD_ARGUMENTS),
    (call('"x"'), BAD_ARGUMENTS),
    (call("{} {}"), BAD_ARGUMENTS),
    (call('{"a": 1e999}'), BAD_ARGUMENTS),
    (call('{"a": 123456789012345678901234567890}'), BAD_ARGUMENTS),
    (call('{"a":' * 1000 + "1" + "}" * 1000), BAD_ARGUMENTS),
    (call("[" * 600_000), "the request body holds too many JSON values"),
    ({"reasoning_effort": "x"}, EFFORT),
    ({"reasoning": {"effort": "x"}}, EFFORT),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs must be between 0 and 20"),
    ({"top_logprobs": -1}, "top_logprobs must be between 0 and 20"),
    ({"response_format": {"type": "xml"}}, "response_format: the type 'xml' is not one of text, json_object, json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format: the schema is missing"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format: the schema is missing"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0]: the type 'custom' is not supported"),
    ({"tools": [TOOL, {"type": "function"}]}, "tools[1].function.name is missing"),
    ({"tool_choice": "some"}, "tool_choice: 'some' is not one of auto, none, required"),
    ({"tool_choice": "required"}, "tool_choice: there are no tools to call"),
    ({"tool_choice": {"type": "custom"}}, "tool_choice: only functions can be named"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice: there is no tool '' in tools"),
    ({"tool_choice": allowed("required")}, "tool_choice: there are no tools to call"),
    ({"tools": [TOOL], "tool_choice": allowed("auto", "g")}, "tool_choice: there is no tool 'g' in tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice: there is no tool 'g' in tools"),
    ({"logit_bias": {"x": 1}}, "logit_bias: 'x' is not the id of a token"),
    ({"logit_bias": {"-1": 1}}, "logit_bias: '-1' is not the id of a token"),
    ({"logit_bias": {"1": 101}}, "logit_bias: the value of token 1 must be between -100 and 100"),
    ({"functions": [{}]}, "functions is not supported: use tools"),
    ({"function_call": "auto"}, "function_call is not supported: use tool_choice"),
    ({"modalities": ["text", "audio"]}, "modalities: only text is supported"),
    ({"audio": {"voice": "x"}}, "audio is not supported"),
    ({"web_search_options": {}}, "web_search_options is not supported"),
    ({"temperature": -1}, 'option "temperature" must be between 0 and 100'),
    ({"stop": ["x"] * 300}, 'option "stop" may hold at most 256 strings'),
    ({"options": {"num_ctx": "x"}}, 'option "num_ctx" must be of type integer'),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "text"), REFUSED, ids=lambda each: str(each)[:40])
async def test_what_cannot_be_done_is_a_400_that_names_it(post, backend, fields, text):
    response, body = await post(**fields)

    assert response.status == 400
    assert body == {
        "error": {
            "message": text,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
    assert backend.jobs.empty()


async def test_a_model_without_a_capability_says_so(post):
    response, body = await post(model="plain", tools=[TOOL])
    assert response.status == 400
    assert (
        body["error"]["message"] == "registry.ollama.ai/library/plain:latest does not support tools"
    )

    response, body = await post(model="plain", reasoning_effort="high")
    assert response.status == 400
    assert body["error"]["message"] == '"plain" does not support thinking'


async def test_an_unknown_model_is_a_404(post):
    response, body = await post(model="nope")

    assert response.status == 404
    assert body["error"] == {
        "message": "model 'nope' not found",
        "type": "not_found_error",
        "param": None,
        "code": None,
    }


async def test_a_full_queue_is_a_503_with_retry_after(post, backend):
    backend.refusal = Busy(retry_after_s=7)

    response, body = await post(stream=True)

    assert response.status == 503
    assert response.headers["Retry-After"] == "7"
    assert body["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Busy(), None),
        (WorkerDied("gone"), None),
        (LoadFailed("broken"), "false"),
        (BadRequest("bad"), None),  # never repeated
    ],
)
async def test_clients_do_not_repeat_what_cannot_succeed(post, backend, error, header):
    backend.refusal = error

    response, _ = await post()

    assert response.headers.get("x-should-retry") == header


async def test_a_prompt_that_is_too_long_has_openais_code(post, backend):
    backend.script = lambda job: job.start().fail(ContextExceeded("too long"))

    response, body = await post()

    assert response.status == 400
    assert body["error"]["code"] == "context_length_exceeded"


async def test_an_error_in_the_middle_ends_the_stream(post, backend):
    backend.script = lambda job: job.start().send("a").fail(WorkerDied("gone"))

    _, events = await post(stream=True)

    assert "[DONE]" not in events
    assert json.loads(events[-1]) == {
        "error": {"message": "gone", "type": "api_error", "param": None, "code": None}
    }


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"5", b'{"model":'])
async def test_a_body_that_is_no_request_is_a_400(session, url, body):
    async with session.post(url + PATH, data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
