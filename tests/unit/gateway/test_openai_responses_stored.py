"""``/v1/responses``: conversations that continue, and the responses that are stored for that."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_async.api.decode import TEXT_LIMIT_BYTES
from ollama_async.core.conversation import Thought, ToolCall, ToolFunction
from ollama_async.core.errors import WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway import http_server
from ollama_async.gateway.handlers.openai_items import read_stored
from ollama_async.gateway.response_store import ITEMS_LIMIT, RESPONSES
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import answer_ok

PATH = "/v1/responses"
DEADLINE_S = 10.0
CALL = ToolCall(ToolFunction("f", {"a": 1}), "call_00000000")
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


@pytest.fixture
def catalog(store) -> Catalog:
    scripts = {
        "m": Script(capabilities=["tools", "thinking"]),
        "sees": Script(capabilities=["vision"]),
    }
    return Catalog(store, scripts)


@pytest.fixture
def call(session, url):
    """``await call(method, path, …)`` → the status and the JSON of the answer."""

    async def call(method, path="", key="", body=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
        async with session.request(method, url + PATH + path, headers=headers, data=data) as answer:
            return answer.status, json.loads(await answer.read())

    return call


@pytest.fixture
def post(call):
    """``await post(**fields)`` → the response; it has to be a success."""

    async def post(key="", **fields):
        status, body = await call("POST", key=key, body={"model": "m", "input": "hi", **fields})
        assert status == 200, body
        return body

    return post


@pytest.fixture
def messages(backend):
    """``await messages()`` → role and text of what the next job reads."""

    async def messages():
        task = (await backend.job()).job.task
        return [(each.role, each.content) for each in task.prompt.messages]

    return messages


@pytest.fixture(autouse=True)
def _answers(backend):
    backend.script = answer_ok


def think_talk_and_call(job):
    job.start().part(Thought("hm")).send("so").part(CALL).end()


# -- conversations --------------------------------------------------------------------------------


async def test_a_response_is_continued_without_its_instructions(post, messages):
    first = await post(input="one", instructions="be brief")
    second = await post(input="two", previous_response_id=first["id"], instructions="be long")
    third = await post(
        input=[{"role": "user", "content": "three"}], previous_response_id=second["id"]
    )

    assert await messages() == [("system", "be brief"), ("user", "one")]
    assert await messages() == [
        ("system", "be long"),
        *(("user", "one"), ("assistant", "ok"), ("user", "two")),
    ]
    assert await messages() == [
        *(("user", "one"), ("assistant", "ok"), ("user", "two"), ("assistant", "ok")),
        ("user", "three"),
    ]
    assert third["previous_response_id"] == second["id"]
    assert third["instructions"] is None


async def test_a_conversation_branches(post, messages):
    first = await post(input="one")
    await post(input="left", previous_response_id=first["id"])
    await post(input="right", previous_response_id=first["id"])
    await messages()

    for word in ("left", "right"):
        assert await messages() == [("user", "one"), ("assistant", "ok"), ("user", word)]


async def test_the_result_of_a_call_follows_the_turn_that_made_it(post, backend):
    backend.script = think_talk_and_call
    first = await post(tools=[TOOL])
    result = {"type": "function_call_output", "call_id": CALL.id, "output": "done"}
    await backend.job()

    await post(input=[result], tools=[TOOL], previous_response_id=first["id"])

    asked, called, answered = (await backend.job()).job.task.prompt.messages
    assert (asked.role, asked.content) == ("user", "hi")
    assert (called.role, called.content, called.thinking) == ("assistant", "so", "hm")
    assert [(each.id, each.function.name) for each in called.tool_calls] == [(CALL.id, "f")]
    assert called.tool_calls[0].function.arguments == {"a": 1}
    assert (answered.role, answered.content, answered.tool_name) == ("tool", "done", "f")


async def test_a_response_is_continued_without_input(post, messages):
    first = await post(input="one")
    await post(input=None, previous_response_id=first["id"])
    await messages()

    assert await messages() == [("user", "one"), ("assistant", "ok")]


async def test_a_streamed_response_can_be_continued(session, url, post, messages):
    body = {"model": "m", "input": "one", "stream": True}
    async with session.post(url + PATH, json=body) as response:
        last = (await response.text()).rstrip().rpartition("data: ")[2]
    first = json.loads(last)["response"]

    await post(input="two", previous_response_id=first["id"])

    await messages()
    assert await messages() == [("user", "one"), ("assistant", "ok"), ("user", "two")]


async def test_a_response_can_be_continued_as_soon_as_its_end_is_read(session, url, post):
    """It is stored before the last event is sent."""
    for _ in range(5):
        body = {"model": "m", "input": "one", "stream": True}
        async with session.post(url + PATH, json=body) as response:
            async for line in response.content:
                if line.startswith(b'data: {"type":"response.completed"'):
                    first = json.loads(line.removeprefix(b"data: "))["response"]
                    break
            assert await post(input="two", previous_response_id=first["id"])


async def test_items_are_referred_to_by_their_ids(post, backend):
    backend.script = think_talk_and_call
    first = await post(input=[{"role": "user", "content": "one", "id": "msg_mine"}])
    await backend.job()
    thought, said, called = [
        {"type": "item_reference", "id": item["id"]} for item in first["output"]
    ]
    result = {"type": "function_call_output", "call_id": CALL.id, "output": "done"}

    # a reference needs no type
    items = [{"id": "msg_mine"}, thought, said, called, result]
    second = await post(input=items)

    messages = (await backend.job()).job.task.prompt.messages
    assert [(each.role, each.content, each.thinking) for each in messages] == [
        *(("user", "one", ""), ("assistant", "so", "hm"), ("tool", "done", ""))
    ]
    backend.script = answer_ok
    await post(input="two", previous_response_id=second["id"])
    assert len((await backend.job()).job.task.prompt.messages) == 5


async def test_the_last_items_of_a_request_can_be_referred_to(call, post):
    items = [{"role": "user", "content": "x", "id": f"i{n}"} for n in range(ITEMS_LIMIT + 1)]
    await post(input=items)

    await post(input=[{"type": "item_reference", "id": "i1"}])
    body = {"model": "m", "input": [{"type": "item_reference", "id": "i0"}]}
    assert (await call("POST", body=body))[0] == 400


@pytest.mark.parametrize("bytes_of_text", [100, 100_000])
async def test_long_conversations_are_read_off_the_loop(post, messages, bytes_of_text):
    text = "x" * bytes_of_text
    first = await post(input=text)

    await post(input="two", previous_response_id=first["id"])

    await messages()
    assert (await messages())[0] == ("user", text)


@pytest.mark.slow
async def test_a_conversation_has_at_most_as_much_text_as_a_body(post, call):
    part = "x" * (TEXT_LIMIT_BYTES // 3 - 1000)
    previous = None
    for _ in range(3):
        previous = (await post(input=part, previous_response_id=previous))["id"]

    body = {"model": "m", "input": part, "previous_response_id": previous}
    status, answer = await call("POST", body=body)

    assert status == 413
    assert "over the limit" in answer["error"]["message"]


@pytest.mark.slow
async def test_many_references_to_a_long_item_are_too_much_text(call, post):
    await post(input=[{"role": "user", "content": "x" * 1_000_000, "id": "msg_mine"}])
    reference = {"type": "item_reference", "id": "msg_mine"}

    status, _ = await call("POST", body={"model": "m", "input": [reference] * 10_000})

    assert status == 413


async def test_a_response_is_read_once_for_all_references_to_it(post, monkeypatch):
    items = [{"role": "user", "content": "x", "id": f"msg_{number}"} for number in range(30)]
    await post(input=items)
    read = []
    module = "ollama_async.gateway.handlers.openai_responses_request"
    monkeypatch.setattr(
        f"{module}.read_stored", lambda response: read.append(response) or read_stored(response)
    )

    await post(input=[{"type": "item_reference", "id": item["id"]} for item in items])

    assert len(read) == 1


async def test_the_tokens_of_a_request_are_counted_with_the_turns_before(call, post, backend):
    first = await post(input="one")
    await backend.job()
    body = {"model": "m", "input": "two", "tools": [TOOL], "previous_response_id": first["id"]}

    counted = await call("POST", "/input_tokens", body=body)

    assert counted == (200, {"object": "response.input_tokens", "input_tokens": 7})
    task = (await backend.job()).job.task
    assert task.counts_only
    assert [message.content for message in task.prompt.messages] == ["one", "ok", "two"]
    assert len(task.prompt.tools) == 1


# -- what is not stored, and for whom -------------------------------------------------------------


async def not_found(call, response_id, key=""):
    body = {"model": "m", "input": "two", "previous_response_id": response_id}
    assert await call("POST", key=key, body=body) == (
        400,
        {
            "error": {
                "message": f"Previous response with id '{response_id}' not found.",
                "type": "invalid_request_error",
                "param": "previous_response_id",
                "code": "previous_response_not_found",
            }
        },
    )
    status, answer = await call("GET", f"/{response_id}", key=key)
    assert (status, answer["error"]["message"]) == (
        404,
        f"Response with id '{response_id}' not found.",
    )
    return True


async def test_a_response_is_stored_unless_the_client_declines(call, post):
    declined, stored = await post(store=False), await post(store=True)

    assert (declined["store"], stored["store"]) == (False, True)
    assert await not_found(call, declined["id"])
    assert (await call("GET", f"/{stored['id']}"))[0] == 200


async def test_another_key_sees_nothing(call, post):
    first = await post(key="ann", input=[{"role": "user", "content": "secret", "id": "msg_mine"}])

    for other in ("bob", ""):
        assert await not_found(call, first["id"], key=other)
        for method, path in (
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("GET", "/input_items"),
        ):
            assert (await call(method, f"/{first['id']}{path}", key=other))[0] == 404
        reference = [{"type": "item_reference", "id": "msg_mine"}]
        status, body = await call("POST", key=other, body={"model": "m", "input": reference})
        assert (status, body["error"]["message"]) == (400, "Item with id 'msg_mine' not found.")
    assert (await call("GET", f"/{first['id']}", key="ann"))[0] == 200


async def test_another_address_sees_nothing(post, call, monkeypatch):
    first = await post(key="same")
    monkeypatch.setattr(
        "ollama_async.gateway.response_store.client_of", lambda _request: "10.9.9.9"
    )

    assert await not_found(call, first["id"], key="same")


async def test_an_evicted_response_is_not_found(call, post, application):
    first = await post()
    store = application[RESPONSES]
    store._limit_count = 1
    second = await post()

    assert await not_found(call, first["id"])
    assert (await call("GET", f"/{second['id']}"))[0] == 200


async def test_a_cancelled_response_is_not_stored(connect, backend, application, monkeypatch):
    monkeypatch.setattr(http_server, "_HALF_CLOSED_S", 0.01)
    backend.script = lambda job: job.start().send("so")
    body = json.dumps({"model": "m", "input": "one", "stream": True})
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await connect()
    writer.write((head + body).encode())
    await reader.readuntil(b"output_text.delta")

    writer.transport.abort()

    job = await backend.job()
    await asyncio.wait_for(job.cancelled.wait(), DEADLINE_S)
    assert application[RESPONSES].count == 0


async def test_a_failed_response_can_be_retrieved(session, url, call, backend):
    backend.script = lambda job: job.start().send("so").fail(WorkerDied("it died"))
    body = {"model": "m", "input": "one", "stream": True}
    async with session.post(url + PATH, json=body) as response:
        last = (await response.text()).rstrip().rpartition("data: ")[2]
    failed = json.loads(last)["response"]

    assert await call("GET", f"/{failed['id']}") == (200, failed)


@pytest.mark.parametrize(
    ("pixels", "is_stored"),
    [(100, True), pytest.param(TEXT_LIMIT_BYTES, False, marks=pytest.mark.slow)],
)
async def test_images_are_stored_unless_the_request_is_large(
    call, post, backend, pixels, is_stored
):
    image = b"\x89PNG" + bytes(pixels)
    part = {
        "type": "input_image",
        "image_url": "data:image/png;base64," + base64.b64encode(image).decode(),
    }

    first = await post(model="sees", input=[{"role": "user", "content": [part]}])

    assert (await backend.job()).job.task.prompt.messages[0].images == [image]
    assert first["store"] is is_stored
    if is_stored:
        await post(model="sees", input="two", previous_response_id=first["id"])
        assert (await backend.job()).job.task.prompt.messages[0].images == [image]
    else:
        assert await not_found(call, first["id"])


# -- retrieving, deleting, listing ----------------------------------------------------------------


async def test_a_response_is_retrieved_as_it_was_given(call, post):
    first = await post(instructions="be brief", metadata={"k": "v"})

    assert await call("GET", f"/{first['id']}?include=reasoning.encrypted_content") == (200, first)
    status, _ = await call("GET", f"/{first['id']}?stream=true")
    assert status == 400


async def test_a_deleted_response_is_gone_but_for_those_that_continue_it(call, post, messages):
    first = await post(input="one")
    second = await post(input="two", previous_response_id=first["id"])

    deleted = await call("DELETE", f"/{first['id']}")

    assert deleted == (200, {"id": first["id"], "object": "response", "deleted": True})
    assert await not_found(call, first["id"])
    await post(input="three", previous_response_id=second["id"])
    await messages(), await messages()
    assert ("user", "one") in await messages()


async def test_a_stored_response_cannot_be_cancelled(call, post):
    first = await post()

    status, body = await call("POST", f"/{first['id']}/cancel")

    assert (status, body["error"]["message"]) == (400, "Cannot cancel a synchronous response.")


async def test_input_items_are_what_the_model_was_given(call, post, backend):
    backend.script = think_talk_and_call
    first = await post(input="one")
    result = {"type": "function_call_output", "call_id": CALL.id, "output": "done"}
    second = await post(
        input=[result, {"role": "assistant", "content": "two", "id": "msg_mine"}],
        previous_response_id=first["id"],
    )

    status, listed = await call("GET", f"/{second['id']}/input_items?order=asc")

    assert status == 200
    asked, *output, answered, said = listed["data"]
    assert asked == {
        "type": "message",
        "id": asked["id"],
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "one"}],
    }
    assert [item["id"] for item in output] == [item["id"] for item in first["output"]]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert answered == result | {"id": answered["id"], "status": "completed"}
    assert (said["id"], said["content"]) == ("msg_mine", [{"type": "output_text", "text": "two"}])
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert (listed["first_id"], listed["last_id"]) == (asked["id"], "msg_mine")


async def test_input_items_come_in_pages(call, post):
    items = [{"role": "user", "content": letter, "id": letter} for letter in "abcde"]
    path = f"/{(await post(input=items))['id']}/input_items"

    async def page(query=""):
        status, listed = await call("GET", path + query)
        assert status == 200, listed
        return "".join(item["id"] for item in listed["data"]), listed["has_more"]

    assert await page() == ("edcba", False)
    assert await page("?limit=2") == ("ed", True)
    assert await page("?limit=2&after=d") == ("cb", True)
    assert await page("?limit=2&after=b&order=desc") == ("a", False)
    assert await page("?order=asc&after=e") == ("", False)
    for wrong in (
        *("?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=z"),
        *("?limit=0100999", "?limit=0100" + "9" * 5000),
    ):
        assert (await call("GET", path + wrong))[0] == 400


# -- anything -------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("", "a", "auto", "none", "required", "function", "message", "user", "assistant", "{}"),
        *("function_call", "function_call_output", "reasoning", "item_reference", "input_text"),
        *("output_text", "input_image", "data:image/png;base64,AA==", "https://x", "resp_0"),
        *("json_schema", "json_object", "text", "namespace", "web_search", "allowed_tools", "low"),
    ]
)
NAMES = st.sampled_from(
    [
        *("type", "role", "content", "id", "text", "name", "arguments", "call_id", "output"),
        *("summary", "image_url", "encrypted_content", "schema", "format", "effort", "mode"),
        *("tools", "parameters", "description", "strict", "properties", "refusal", "namespace"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        *("input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "stream"),
        *("previous_response_id", "instructions", "truncation", "temperature", "top_p", "store"),
        *("max_output_tokens", "top_logprobs", "user", "Input", "background", "conversation"),
    ]
)


@given(st.dictionaries(FIELDS, VALUES, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.usefixtures("backend")
async def test_no_body_is_a_bug(session, url, fields):
    body = {"model": "m", "input": "hi", **fields}

    async with session.post(url + PATH, data=json.dumps(body)) as response:
        text = await response.text()

    assert response.status < 500, text
    if response.status >= 400:
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


async def test_requests_of_one_conversation_at_once_do_not_disturb_each_other(post):
    first = await post(input="one")

    many = await asyncio.gather(
        *(post(input=letter, previous_response_id=first["id"]) for letter in string.ascii_letters)
    )

    assert len({each["id"] for each in many}) == len(string.ascii_letters)
