"""``/v1/responses``: what reaches the queue, the object of an answer, the events of a stream."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from itertools import count
from pathlib import Path

import msgspec
import pytest

from ollama_async.api import openai_response_events
from ollama_async.core.conversation import Logprobs, Thought, TokenLogprob, ToolCall, ToolFunction
from ollama_async.core.errors import BadRequest, ContextExceeded, WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway import streaming
from ollama_async.gateway.client_budgets import SEND_BUDGET
from ollama_async.gateway.handlers import openai_responses_request
from ollama_async.gateway.response_formats import openai_responses
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import answer_ok, everything, make_post

PATH = "/v1/responses"
DEADLINE_S = 10.0
GOLDEN = Path(__file__).parents[2] / "fixtures" / "streams"
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": [True, None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("ns.g", {}, 1), "call_11111111"),
]
TOOL = {
    "type": "function",
    "name": "f",
    "description": "does f",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    "strict": True,
}
AS_OLLAMA = {
    "type": "function",
    "function": {"name": "f", "description": "does f", "parameters": TOOL["parameters"]},
}
TEXT = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


@pytest.fixture
def catalog(store) -> Catalog:
    scripts = {
        "m": Script(capabilities=["tools", "thinking"]),
        "sees": Script(capabilities=["vision"]),
        "plain": Script(),
    }
    return Catalog(store, scripts)


@pytest.fixture
def post(session, url):
    return make_post(session, url + PATH, {"model": "m", "input": "hi"}, read_events)


def read_events(text):
    """The events of a stream, each of which is what its name says."""
    events = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        msgspec.convert(event, openai_response_events.Event)
        events.append(event)
    return events


@pytest.fixture
def refused(post, backend):
    """``await refused(**fields)`` → the message of the 400; nothing reaches the queue."""

    async def refused(**fields):
        response, body = await post(**fields)
        assert response.status == 400, body
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["type"] == "invalid_request_error"
        assert backend.jobs.empty()
        return body["error"]["message"]

    return refused


say_everything = everything(CALLS, "bye")


def types(events):
    return [event["type"].removeprefix("response.") for event in events]


# -- the object -----------------------------------------------------------------------------------


async def test_an_answer_is_one_object_with_its_items_in_order(post, backend):
    backend.script = say_everything

    response, body = await post()

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    thought, said, *calls, more = body.pop("output")
    assert thought == {
        "id": thought["id"],
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "hm",
    }
    assert said == {
        "id": said["id"],
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [TEXT | {"text": "so on"}],
    }
    assert calls == [
        {
            "id": item["id"],
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.function.name,
            "arguments": arguments,
        }
        for item, call, arguments in zip(
            calls, CALLS, ['{"b":1,"a":[true,null]}', "{}"], strict=True
        )
    ]
    assert more["content"] == [TEXT | {"text": "bye"}]
    assert [each["id"].partition("_")[0] for each in (thought, said, *calls, more)] == [
        *("rs", "msg", "fc", "fc", "msg")
    ]
    assert body.pop("id").startswith("resp_")
    assert body.pop("completed_at") >= body.pop("created_at") > 1_700_000_000
    assert body == {
        "object": "response",
        "status": "completed",
        "incomplete_details": None,
        "error": None,
        "model": "m",
        "previous_response_id": None,
        "instructions": None,
        "tools": [],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 9,
        },
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "max_tool_calls": None,
        "max_output_tokens": None,
        "truncation": "auto",
        "text": {"format": {"type": "text"}},
        "reasoning": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "store": True,
        "background": False,
        "service_tier": "default",
        "metadata": {},
        "user": None,
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


async def test_the_settings_of_the_request_are_repeated(post, backend):
    backend.script = answer_ok
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    search = {"type": "web_search", "search_context_size": "low", "user_location": {"a": 1}}
    namespace = {"type": "namespace", "name": "ns", "description": "d", "tools": [TOOL]}
    named = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}

    _, body = await post(
        instructions="be brief",
        tools=[TOOL, namespace, search],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        max_tool_calls=3,
        max_output_tokens=64,
        truncation="disabled",
        text={"format": named, "verbosity": "low"},
        reasoning={"effort": "minimal", "summary": "auto"},
        temperature=0,
        top_p=0.5,
        top_logprobs=2,
        store=False,
        service_tier="flex",
        metadata={"k": "v"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="p",
        prompt_cache_retention="24h",
        stream_options={"include_obfuscation": False},
        include=["reasoning.encrypted_content"],
    )

    assert {
        "instructions": "be brief",
        "tools": [TOOL, namespace, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "max_tool_calls": 3,
        "max_output_tokens": 64,
        "truncation": "disabled",
        "text": {"format": named, "verbosity": "low"},
        "reasoning": {"effort": "minimal", "summary": "auto"},
        "temperature": 0.0,
        "top_p": 0.5,
        "top_logprobs": 2,
        "store": False,
        "service_tier": "default",
        "metadata": {"k": "v"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
    }.items() <= body.items()


async def test_what_is_very_large_is_not_repeated(post, backend, monkeypatch):
    monkeypatch.setattr(openai_responses_request, "REPEATED_LIMIT_BYTES", 2000)
    backend.script = answer_ok

    _, body = await post(instructions="x" * 2000, tools=[TOOL], user="u")

    assert (body["instructions"], body["tools"], body["user"]) == (None, [], "u")
    prompt = (await backend.job()).job.task.prompt
    assert prompt.messages[0].content == "x" * 2000
    assert len(prompt.tools) == 1


async def test_ids_are_unique(post, backend):
    backend.script = answer_ok

    bodies = [(await post())[1] for _ in range(10)]

    assert len({each["id"] for each in bodies}) == 10
    assert len({each["output"][0]["id"] for each in bodies}) == 10


async def test_a_response_that_is_cut_off_is_incomplete(post, backend):
    """Ollama says that it is complete."""
    backend.script = lambda job: job.start().send("so").end("length")

    _, body = await post(max_output_tokens=1)

    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["completed_at"] is None
    assert body["output"][0]["status"] == "incomplete"
    assert body["output"][0]["content"] == [TEXT | {"text": "so"}]


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_an_answer_without_text_has_an_empty_message(post, backend, is_streamed):
    backend.script = lambda job: job.start().part(Thought("hm")).end()

    _, body = await post(stream=is_streamed)

    response = body[-1]["response"] if is_streamed else body
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["output"][1]["content"] == [TEXT]


async def test_a_call_without_an_id_gets_one(post, backend):
    backend.script = lambda job: job.start().part(ToolCall(ToolFunction("f"))).end()

    _, body = await post()

    assert body["output"][0]["call_id"].startswith("call_")


# -- the stream -----------------------------------------------------------------------------------


async def test_events_come_in_the_order_of_openai(post, backend):
    backend.script = say_everything

    response, events = await post(stream=True)

    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    message = [
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
    ]
    call = [
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
    ]
    thought = [
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    assert types(events) == [
        *("created", "in_progress"),
        *thought,
        *message,
        *call,
        *call,
        *message,
        "completed",
    ]


async def test_a_stream_ends_with_the_object_that_its_events_describe(post, backend):
    backend.script = say_everything

    _, events = await post(stream=True, instructions="be brief")

    first, last = events[0]["response"], events[-1]["response"]
    assert first["status"] == events[1]["response"]["status"] == "in_progress"
    assert (first["output"], first["usage"], first["completed_at"]) == ([], None, None)
    changing = {"status", "output", "usage", "completed_at"}
    assert {name: value for name, value in first.items() if name not in changing} == {
        name: value for name, value in last.items() if name not in changing
    }
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == last["output"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3, 4]
    for index, item in enumerate(last["output"]):
        parts = [each for each in events if each.get("item_id") == item["id"]]
        assert {each["output_index"] for each in parts} == {index}
        deltas = "".join(each.get("delta", "") for each in parts)
        (whole,) = {each[name] for each in parts for name in ("text", "arguments") if name in each}
        assert deltas == whole


async def test_each_piece_of_text_is_an_event(post, backend):
    pieces = ['"', "\u2028é😀", "\\", " c"]
    asking = asyncio.create_task(post(stream=True))
    job = (await backend.job()).start()
    for piece in pieces:
        job.send(piece)
        await asyncio.sleep(0)
    job.end()
    _, events = await asking

    deltas = [each for each in events if each["type"] == "response.output_text.delta"]
    assert "".join(each["delta"] for each in deltas) == "".join(pieces)
    assert {each["content_index"] for each in deltas} == {0}
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "".join(pieces)


@pytest.mark.parametrize("off_loop_tokens", [20_000, 0])
async def test_the_bytes_of_a_stream_are_those_of_the_golden_file(
    session, url, backend, monkeypatch, off_loop_tokens
):
    monkeypatch.setattr(streaming, "OFF_LOOP_TOKENS", off_loop_tokens)
    numbers = count()
    for module in ("response_formats.openai_responses", "handlers.openai_responses_request"):
        monkeypatch.setattr(
            f"ollama_async.gateway.{module}.new_id",
            lambda prefix: f"{prefix}_{next(numbers):048x}",
        )
    monkeypatch.setattr("time.time", lambda: 1_750_000_000.0)
    backend.script = say_everything
    body = {"model": "m", "input": "hi", "stream": True, "tools": [TOOL], "store": False}

    async with session.post(url + PATH, json=body) as response:
        text = await response.text()

    assert text == (GOLDEN / "openai-responses.txt").read_text(encoding="utf-8")


async def test_a_response_that_is_cut_off_ends_with_incomplete(post, backend):
    backend.script = lambda job: job.start().send("so").end("length")

    _, events = await post(stream=True)

    assert types(events)[-2:] == ["output_item.done", "incomplete"]
    assert events[-2]["item"]["status"] == "incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(WorkerDied("it died"), "server_error"), (BadRequest("no"), "invalid_prompt")],
)
async def test_an_error_in_the_middle_is_told_twice(post, backend, error, code):
    """Some clients look for the event ``error``, others for a response that failed."""
    backend.script = lambda job: job.start().part(CALLS[0]).send("so").fail(error)

    _, events = await post(stream=True)

    assert types(events)[-2:] == ["error", "failed"]
    assert events[-2] == {
        "type": "error",
        "sequence_number": len(events) - 2,
        "code": code,
        "message": error.message,
        "param": None,
    }
    response = events[-1]["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": code, "message": error.message}
    call, message = response["output"]
    assert call["type"] == "function_call"
    (added,) = (
        each["item"]
        for each in events
        if each["type"].endswith("item.added") and each["item"]["type"] == "message"
    )
    assert (message["id"], message["status"]) == (added["id"], "incomplete")
    assert [part["text"] for part in message["content"]] == ["so"]


async def test_a_failed_response_holds_a_thought_that_was_cut_off(post, backend):
    backend.script = lambda job: job.start().part(Thought("hm")).fail(WorkerDied("it died"))

    _, events = await post(stream=True)

    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["summary"][0]["text"]) == ("reasoning", "hm")


async def test_a_failed_response_leaves_out_a_long_text_that_was_cut_off(post, backend):
    backend.script = lambda job: job.start().send("x" * 100_000).fail(WorkerDied("it died"))

    _, events = await post(stream=True)

    assert events[-1]["response"]["output"] == []


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_an_error_before_the_first_text_is_a_status(post, backend, is_streamed):
    backend.script = lambda job: job.start().fail(ContextExceeded("too long"))

    response, body = await post(stream=is_streamed)

    assert response.status == 400
    assert body["error"]["code"] == "context_length_exceeded"


@pytest.mark.slow
async def test_the_long_end_of_a_stream_counts_until_it_is_read(url, backend, application):
    """It repeats the text four times, and a client may leave it in the server's memory."""
    text = "x" * (2 << 20)
    backend.script = lambda job: job.start().send(text).end()
    host, _, port = url.removeprefix("http://").partition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
    body = json.dumps({"model": "m", "input": "one", "stream": True})
    head = f"POST {PATH} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())

    async with asyncio.timeout(DEADLINE_S):
        while application[SEND_BUDGET].reserved_bytes < 4 * len(text):
            assert await reader.read(2**16)
        while await reader.read(2**16):
            pass
    writer.close()
    assert application[SEND_BUDGET].reserved_bytes == 0


async def test_a_restarted_answer_says_nothing_twice(post, backend):
    def die_once(job):
        job.start().part(Thought("old")).send("old")
        assert job.restart()
        job.send("new").end()

    backend.script = die_once

    _, body = await post()

    assert [item["type"] for item in body["output"]] == ["message"]
    assert body["output"][0]["content"][0]["text"] == "new"


# -- logprobs -------------------------------------------------------------------------------------


def token(text, *top):
    return TokenLogprob(text.encode(), -0.5, [(each.encode(), -1.0) for each in top])


def shown(text, *top):
    return {
        "token": text,
        "logprob": -0.5,
        "bytes": list(text.encode()),
        "top_logprobs": [
            {"token": each, "logprob": -1.0, "bytes": list(each.encode())} for each in top
        ],
    }


def say_with_logprobs(job):
    """Thinking, text of which one token is held back, and a call; with tokens that make nothing."""
    job.start()
    job.part(Logprobs([token("<hm>")]), Thought("hm"))
    job.part(Logprobs([token("</hm>")]), Logprobs([token("\n")]))
    job.part(Logprobs([token("a", "b")]))
    job.part(Logprobs([token("b")])).send("ab")
    job.part(Logprobs([token("c")])).send("c")
    job.part(Logprobs([token("{call}")]), CALLS[0])
    job.part(Logprobs([token("<end>")]))
    job.end()


LOGPROBS = [shown("a", "b"), shown("b"), shown("c")]


async def test_the_tokens_of_a_text_have_logprobs(post, backend):
    backend.script = say_with_logprobs

    _, body = await post(include=["message.output_text.logprobs"], top_logprobs=1)

    assert (await backend.job()).job.task.logprobs == 1
    thought, said, call = body["output"]
    assert said["content"][0]["logprobs"] == LOGPROBS
    assert "logprobs" not in thought
    assert "logprobs" not in call


async def test_the_deltas_of_a_text_have_logprobs(post, backend):
    backend.script = say_with_logprobs

    _, events = await post(include=["message.output_text.logprobs"], stream=True)

    deltas = [each for each in events if each["type"] == "response.output_text.delta"]
    assert [(each["delta"], each["logprobs"]) for each in deltas] == [
        ("ab", LOGPROBS[:2]),
        ("c", LOGPROBS[2:]),
    ]
    (done,) = [each for each in events if each["type"] == "response.output_text.done"]
    assert done["logprobs"] == LOGPROBS
    assert events[-1]["response"]["output"][1]["content"][0]["logprobs"] == LOGPROBS


async def test_the_last_events_leave_out_very_many_logprobs(post, backend, monkeypatch):
    """They would repeat them four times, in one write."""
    monkeypatch.setattr(openai_responses, "LOGPROBS_LIMIT_BYTES", 200)
    backend.script = say_with_logprobs
    include = ["message.output_text.logprobs"]

    _, events = await post(include=include, stream=True)
    _, body = await post(include=include)

    deltas = [each for each in events if each["type"] == "response.output_text.delta"]
    assert [each["logprobs"] for each in deltas] == [LOGPROBS[:2], LOGPROBS[2:]]
    assert events[-1]["response"]["output"][1]["content"][0]["logprobs"] == []
    assert body["output"][1]["content"][0]["logprobs"] == LOGPROBS


async def test_without_being_asked_for_no_logprobs_are_computed(ask):
    assert (await ask(top_logprobs=5)).logprobs == -1


# -- requests -------------------------------------------------------------------------------------


async def test_a_text_is_a_message_of_the_user_after_the_instructions(ask):
    task = await ask(input="hello", instructions="be brief")

    assert [(each.role, each.content) for each in task.prompt.messages] == [
        ("system", "be brief"),
        ("user", "hello"),
    ]


async def test_options_are_those_of_ollama(ask):
    default, given = (
        await ask(),
        await ask(temperature=0.5, top_p=0.25, max_output_tokens=9, truncation="disabled"),
    )

    assert (default.sampling.temperature, default.sampling.top_p) == (1.0, 0.9)
    assert (default.sampling.num_predict, default.prompt.truncate) == (-1, True)
    assert (given.sampling.temperature, given.sampling.top_p) == (0.5, 0.25)
    assert (given.sampling.num_predict, given.prompt.truncate) == (9, False)


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("high", "high"), ("xhigh", "max"), (None, True)],
)
async def test_an_effort_is_a_level_of_thinking(ask, effort, think):
    assert (await ask(reasoning={"effort": effort})).prompt.think == think


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, "json"),
        ({"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}, SCHEMA),
        ({"verbosity": "high"}, None),
        ({}, None),
    ],
)
async def test_a_text_format_is_a_format(ask, text, expected):
    assert (await ask(text=text)).format == expected


async def test_every_kind_of_item_is_a_part_of_a_message(ask):
    items = [
        {"role": "developer", "content": "rules"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_text", "text": "b", "prompt_cache_breakpoint": {}},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "hm"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "d"},
            ],
            "phase": "commentary",
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "", "namespace": "ns"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "t"}, {"type": "output_text", "text": "wo"}],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "because"}]},
        {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
        {"role": "assistant", "content": "e"},
        {"type": "function_call_output", "call_id": "3", "output": "three"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "!"}]},
    ]
    messages = (await ask(input=items)).prompt.messages

    assert [(each.role, each.content, each.thinking) for each in messages] == [
        ("developer", "rules", ""),
        ("user", "ab", ""),
        ("assistant", "cd", "hm"),
        ("tool", "one", ""),
        ("tool", "two", ""),
        ("assistant", "e", "because"),
        ("tool", "three", ""),
        ("assistant", "", "!"),
    ]
    calls = [
        (call.id, call.function.index, call.function.name, call.function.arguments)
        for message in messages
        for call in message.tool_calls
    ]
    assert calls == [("1", 0, "f", {"a": 1}), ("2", 1, "ns.g", {}), ("3", 0, "f", {})]
    tools = [each for each in messages if each.role == "tool"]
    assert [(each.tool_name, each.tool_call_id) for each in tools] == [
        ("f", "1"),
        ("ns.g", "2"),
        ("f", "3"),
    ]


async def test_images_and_recordings_go_with_their_message(ask):
    image, recording = b"\x89PNG pixels", b"RIFF sound"
    parts = [
        {"type": "input_text", "text": "what is it?"},
        {
            "type": "input_image",
            "detail": "auto",
            "image_url": "data:image/png;base64," + base64.b64encode(image).decode(),
        },
        {
            "type": "input_audio",
            "input_audio": {"format": "wav", "data": base64.b64encode(recording).decode()},
        },
    ]

    task = await ask(model="sees", input=[{"role": "user", "content": parts}])

    (message,) = task.prompt.messages
    assert (message.content, message.images) == ("what is it?", [image, recording])


async def test_functions_are_tools(ask):
    namespace = {"type": "namespace", "name": "ns", "tools": [TOOL, {**TOOL, "name": "ns.g"}]}

    task = await ask(tools=[TOOL, namespace, {"type": "web_search"}], parallel_tool_calls=False)

    assert task.prompt.tools[0] == AS_OLLAMA
    assert [tool["function"]["name"] for tool in task.prompt.tools] == ["f", "ns.f", "ns.g"]
    assert (task.prompt.tool_choice, task.prompt.parallel_tool_calls) == ("auto", False)


OTHER = {**TOOL, "name": "g"}


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        ("none", "none", []),
        ("required", "required", ["f", "g"]),
        ({"type": "function", "name": "g"}, "g", ["f", "g"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "g"}],
            },
            "required",
            ["g"],
        ),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}, "auto", ["f"]),
    ],
)
async def test_a_choice_of_tools_reaches_the_model(ask, choice, expected, names):
    task = await ask(tools=[TOOL, OTHER], tool_choice=choice)

    assert task.prompt.tool_choice == expected
    assert [tool["function"]["name"] for tool in task.prompt.tools] == names


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": ""}, "model is required"),
        ({"input": None}, 'One of "input" or "previous_response_id" must be provided.'),
        ({"input": []}, 'One of "input" or "previous_response_id" must be provided.'),
        ({"input": 3}, "input must be a string or array"),
        ({"input": [{}]}, "input[0]: input item missing required 'type' field"),
        (
            {"input": [{"role": "user"}, {"type": "computer_call"}]},
            'input[1]: unknown input item type: "computer_call"',
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0]: file inputs are not currently supported",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0]: unknown content type: input_audio",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "x"}]}]},
            "input[0]: unknown content type: x",
        ),
        ({"input": [{"role": "user", "content": {}}]}, "content must be a string or array"),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "[1]"}]},
            "input[0]: invalid tool call arguments",
        ),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "{"}]},
            "input[0]: invalid tool call arguments",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "https://x/y.png"}],
                    }
                ]
            },
            "input[0]: image URLs are not currently supported, please use base64 encoded data",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0]: input_image without an image_url",
        ),
        ({"background": True}, "background is not supported"),
        ({"conversation": "conv_1"}, "conversation is not supported"),
        ({"conversation": {"id": "conv_1"}}, "conversation is not supported"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"context_management": [{"type": "compaction"}]}, "context_management is not supported"),
        ({"truncation": "middle"}, "truncation must be one of auto, disabled"),
        ({"reasoning": {"summary": "x"}}, "reasoning.summary must be one of auto, concise,"),
        ({"text": {"verbosity": "x"}}, "text.verbosity must be one of low, medium, high"),
        ({"user": "u" * 513}, "user has at most 512 characters"),
        ({"include": ["x"]}, "include: 'x' is not one of"),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"max_output_tokens": 0}, "max_output_tokens must be at least 1"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata: at most 16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "metadata: keys have at most 64 characters"),
        ({"metadata": {"k": "v" * 513}}, "values 512"),
        ({"reasoning": {"effort": "huge"}}, 'invalid reasoning value: "huge"'),
        (
            {"text": {"format": {"type": "grammar"}}},
            "text.format: the type 'grammar' is not one of",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format: the schema is missing"),
        ({"tools": [{"type": "function"}]}, "tools[0].name is missing"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]},
            "tools[0].tools[0]: the type 'custom' is not supported",
        ),
        (
            {"tools": [{"type": "namespace", "name": "n" * 256, "tools": [TOOL]}]},
            "tools[0].tools[0].name has at most 256 characters",
        ),
        *(
            ({"tools": [TOOL, {"type": kind}]}, f"tools[1]: the type '{kind}' is not supported")
            for kind in ("custom", "file_search", "computer", "mcp", "code_interpreter")
        ),
        ({"tool_choice": "required"}, "tool_choice: there are no tools to call"),
        ({"tool_choice": "sometimes"}, "tool_choice: 'sometimes' is not one of"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}},
            "tool_choice: there is no tool 'g'",
        ),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice: only functions can be named"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "tools": [{"name": "g"}]},
            },
            "tool_choice: there is no tool 'g'",
        ),
        ({"model": "plain", "tools": [TOOL]}, "does not support tools"),
        ({"tools": ["f"]}, "ResponsesRequest.tools of type openai.Tool"),
        ({"temperature": "hot"}, "ResponsesRequest.temperature of type float64"),
        ({"previous_response_id": "resp_1"}, "Previous response with id 'resp_1' not found."),
    ],
)
async def test_what_cannot_be_done_is_named(refused, fields, named):
    assert named in await refused(**fields)


async def test_an_unknown_model_is_not_found(post):
    response, body = await post(model="unknown")

    assert response.status == 404
    assert body["error"]["message"] == "model 'unknown' not found"
