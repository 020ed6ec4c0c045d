"""``/v1/messages`` and ``/v1/messages/count_tokens``: what reaches the queue, what is refused."""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_async.api.anthropic import CountTokensRequest, MessagesRequest
from ollama_async.api.decode import decode
from ollama_async.core.conversation import Message
from ollama_async.core.errors import BadRequest, Busy, ContextExceeded
from ollama_async.core.scripted_models import Script
from ollama_async.gateway.handlers.anthropic import translate_count, translate_messages
from ollama_async.store.catalog import Catalog

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
ASKED = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "description": "of a city", "input_schema": SCHEMA}


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(
        store,
        {
            "m": Script(capabilities=["tools", "thinking"]),
            "plain": Script(),
            "seer": Script(capabilities=["vision"]),
        },
    )


@pytest.fixture
def post(session, url):
    """``await post(path, body, **fields)`` → (response, decoded body)."""

    async def post(path: str = MESSAGES, body: bytes | None = None, **fields):
        fields = {"model": "m", "messages": ASKED, **fields}
        if path == MESSAGES:
            fields = {"max_tokens": 9, **fields}
        data = json.dumps(fields).encode() if body is None else body
        async with session.post(url + path, data=io.BytesIO(data)) as response:
            return response, json.loads(await response.read())

    return post


@pytest.fixture
def task(post, backend):
    """``await task(**fields)`` → the inference that reached the queue."""

    async def task(path: str = MESSAGES, **fields):
        backend.script = lambda job: job.start().send("ok").end()
        response, body = await post(path, **fields)
        assert response.status == 200, body
        return (await backend.job()).job.task

    return task


@pytest.fixture
def refusal(post, backend):
    """``await refusal(**fields)`` → (status, type, message) of the error."""

    async def refusal(path: str = MESSAGES, body: bytes | None = None, **fields):
        response, answer = await post(path, body, **fields)
        assert backend.jobs.empty()
        assert answer["type"] == "error"
        assert answer["request_id"] == response.headers["Request-Id"]
        return response.status, answer["error"]["type"], answer["error"]["message"]

    return refusal


async def test_fields_reach_the_model(task):
    inference = await task(
        max_tokens=7,
        system="be brief",
        temperature=0.3,
        top_p=0.5,
        top_k=3,
        stop_sequences=["STOP"],
        metadata={"user_id": "u"},
        service_tier="auto",
        speed=None,
    )
    assert inference.prompt.messages == [Message("system", "be brief"), Message("user", "hi")]
    sampling = inference.sampling
    assert (sampling.num_predict, sampling.stop) == (7, ["STOP"])
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.3, 0.5, 3)


async def test_without_options_the_models_hold(task):
    sampling = (await task(stop_sequences=[], temperature=None, max_tokens=2**40)).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.8, 0.9, 40)
    assert sampling.num_predict == 2**31 - 1


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, True),  # as in Ollama, a model that can think does so
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, False),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "xhigh"}}, "high"),
        ({"output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": None}}, True),
        ({"model": "plain", "thinking": {"type": "enabled", "budget_tokens": 1024}}, None),
        ({"model": "plain", "output_config": {"effort": "high"}}, None),
    ],
)
async def test_thinking(task, fields, think):
    assert (await task(**fields)).prompt.think == think


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", True)),
        ({"type": "auto"}, ("auto", True)),
        ({"type": "any"}, ("required", True)),
        ({"type": "tool", "name": "weather"}, ("weather", True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", False)),
    ],
)
async def test_tools(task, choice, expected):
    custom = {**TOOL, "type": "custom", "cache_control": {"type": "ephemeral"}, "strict": True}
    prompt = (await task(tools=[custom], tool_choice=choice)).prompt

    function = {"name": "weather", "description": "of a city", "parameters": SCHEMA}
    assert prompt.tools == [{"type": "function", "function": function}]
    assert (prompt.tool_choice, prompt.parallel_tool_calls) == expected


async def test_tools_that_may_not_be_called(task):
    assert (await task(tools=[TOOL], tool_choice={"type": "none"})).prompt.tools == []


@pytest.mark.parametrize(
    "place",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
async def test_structured_output(task, place):
    assert (await task(**place)).format == SCHEMA


@pytest.mark.parametrize("size", [100, pytest.param(7 << 20, marks=pytest.mark.slow)])
async def test_images_reach_the_model_whatever_their_size(task, size):
    """Large ones are decoded apart from the rest of the body."""
    image = bytes(range(256)) * (size // 256) + b"\xff"
    source = {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(image).decode(),
    }
    block = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [block]}
    turns = [{"role": "user", "content": [result, {"type": "text", "text": "?"}]}]

    prompt = (await task(model="seer", messages=turns)).prompt

    assert [message.images for message in prompt.messages] == [[image], []]


async def test_tokens_are_counted_by_the_worker(post, backend):
    backend.script = lambda job: job.start().send("the prompt").end()

    response, body = await post(COUNT, system="be brief", tools=[TOOL])

    assert (response.status, body) == (200, {"input_tokens": 7})
    inference = (await backend.job()).job.task
    assert inference.counts_only
    assert inference.prompt.messages == [Message("system", "be brief"), Message("user", "hi")]
    assert inference.prompt.tools[0]["function"]["name"] == "weather"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "model is required"),
        ({"model": "", "max_tokens": 0, "messages": []}, "model is required"),
        ({"max_tokens": 0, "messages": []}, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"max_tokens": "9"}, "max_tokens: Expected `int`, got `str`"),
        ({"max_tokens": 1.5}, "max_tokens: Expected `int`, got `float`"),
        ({"max_tokens": 10**30}, "max_tokens: Expected `int`, got `float`"),
        ({"messages": None}, "messages: Expected `array`, got `null`"),
        ({"messages": [{"role": "user"}]}, "messages.0: Object missing required field `content`"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role: Invalid enum value 'tool'",
        ),
        (
            {"messages": [*ASKED, {"role": "user", "content": 3}]},
            "messages.1.content: Expected `str | array`, got `int`",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]},
            "messages.0.content.0.type: Invalid value 'container_upload'",
        ),
        (
            {"system": [{"type": "image"}]},
            "system.0.type: Invalid value 'image'",
        ),
        ({"temperature": 101}, 'option "temperature" must be between 0 and 100'),
        ({"stop_sequences": ["x"] * 257}, 'option "stop" may hold at most 256 strings'),
        ({"thinking": {"type": "wild"}}, "thinking.type: Invalid enum value 'wild'"),
        (
            {"output_config": {"effort": "some"}},
            "output_config.effort: Invalid enum value 'some'",
        ),
        ({"container": "c"}, "container: this server runs no code"),
        ({"compaction": {"type": "x"}}, "compaction: this server does not summarize"),
        ({"mcp_servers": [{}]}, "mcp_servers: this server runs no tools"),
        ({"tools": [{"input_schema": {}}]}, "tools: a tool has no name"),
        ({"tools": [{"name": "f"}]}, "tool 'f': input_schema is required"),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            "tool 'bash': type 'bash_20250124' is not supported, only tools with an input_schema",
        ),
        (
            {"tool_choice": {"type": "any"}},
            "tool_choice: there are no tools to call",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
            "tool_choice: there is no tool 'f' in tools",
        ),
        (
            {"tools": [TOOL | {"name": "none"}], "tool_choice": {"type": "tool", "name": "none"}},
            "tool_choice: a function called 'none' cannot be named",
        ),
        (
            {"model": "plain", "tools": [TOOL]},
            "registry.ollama.ai/library/plain:latest does not support tools",
        ),
    ],
)
async def test_refusals(refusal, fields, message):
    assert await refusal(**fields) == (400, "invalid_request_error", message)


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b"{", "unexpected EOF"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
    ],
)
async def test_bodies_that_are_no_objects(refusal, path, body, message):
    assert await refusal(path, body) == (400, "invalid_request_error", message)


async def test_unknown_models_and_routes(refusal, session, url):
    expected = (404, "not_found_error", "model 'x' not found")
    assert await refusal(model="x") == expected
    assert await refusal(COUNT, model="x") == expected
    status, kind, _ = await refusal("/v1/messages/batches")
    assert (status, kind) == (404, "not_found_error")
    async with session.get(url + MESSAGES) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_clients_that_count_on_a_thread_are_told_to_send_all_messages(post):
    """Anthropic's client does so on this code; it would send only the newest message otherwise."""
    response, body = await post(thread={"type": "create"})
    assert response.status == 400
    assert body["error"] == {
        "type": "invalid_request_error",
        "message": "thread: this server holds no conversations; send all messages",
        "details": {"error_code": "thread_unsupported_request"},
    }


async def test_a_full_queue_is_an_overload(refusal, backend):
    backend.refusal = Busy()
    status, kind, _ = await refusal()
    assert (status, kind) == (503, "overloaded_error")


async def test_an_error_before_the_first_byte_has_its_status(post, backend):
    backend.script = lambda job: job.fail(ContextExceeded("too long"))
    response, body = await post(stream=True)
    assert response.status == 400
    assert body["error"] == {"type": "invalid_request_error", "message": "too long"}


async def test_every_answer_names_its_request(post, backend):
    backend.script = lambda job: job.start().send("ok").end()
    ids = {(await post())[0].headers["Request-Id"] for _ in range(3)}
    assert len(ids) == 3


# ------------------------------------------------------------------ hostile bodies

_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["text", "image", "tool_use", "tool_result", "document", "base64", "user"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "text", "source", "data", "content", "id", "name", "input", "role"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
_FIELDS = sorted({*MessagesRequest.__struct_fields__, "metadata", "cache_control"})


_REQUIRED = st.fixed_dictionaries({"model": st.just("m"), "max_tokens": st.just(1)})
_TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": _VALUES})
)


@given(
    _REQUIRED,
    st.dictionaries(st.sampled_from(_FIELDS), _VALUES),
    st.one_of(st.just({}), st.fixed_dictionaries({"messages": _TURNS})),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_fields_hold_is_translated_or_refused(required, fields, turns):
    body = json.dumps(required | fields | turns).encode()
    with suppress(BadRequest):
        translate_messages(decode(body, MessagesRequest), request_id="")
    with suppress(BadRequest):
        translate_count(decode(body, CountTokensRequest), request_id="")
