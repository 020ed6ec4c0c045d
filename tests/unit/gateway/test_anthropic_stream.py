"""The events of ``/v1/messages``, and its one object without streaming."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import anthropic
from ollama_async.core.conversation import ToolCall, ToolFunction, Usage
from ollama_async.core.errors import Busy, WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway.response_formats import AnswerContent, FinalAnswer
from ollama_async.gateway.response_formats import anthropic as formats
from ollama_async.gateway.response_formats.anthropic import AnthropicFormat
from ollama_async.queue.backend import Finish, Start
from ollama_async.store.catalog import Catalog
from tests.unit.gateway.conftest import everything

GOLDEN = Path(__file__).parents[2] / "fixtures" / "streams" / "anthropic.txt"
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": ["é", None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]
USAGE = {
    "input_tokens": 4,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 3,
    "output_tokens": 2,
}


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"])})


@pytest.fixture
def ask(session, url):
    """``await ask(**fields)`` → the bytes of the answer."""

    async def ask(**fields):
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        async with session.post(f"{url}/v1/messages", json=body | fields) as response:
            assert response.status == 200
            kind = "text/event-stream" if fields.get("stream") else "application/json"
            assert response.content_type == kind
            return await response.read()

    return ask


@pytest.fixture
def counted_ids(monkeypatch):
    numbers = itertools.count(1)
    monkeypatch.setattr(formats, "_message_id", lambda: f"msg_{next(numbers):024}")
    monkeypatch.setattr(formats, "_signature", lambda: f"signature-{next(numbers)}")


def events(data: bytes) -> list[anthropic.Event | anthropic.ErrorResponse]:
    """Each event, whose name is its type."""
    *blocks, end = data.decode().split("\n\n")
    assert end == ""
    found = []
    for block in blocks:
        name, value = block.split("\n")
        event = msgspec.json.decode(
            value.removeprefix("data: "), type=anthropic.Event | anthropic.ErrorResponse
        )
        assert name == f"event: {event.__struct_config__.tag}"
        found.append(event)
    return found


say_everything = everything(CALLS, "bye")


@pytest.mark.usefixtures("counted_ids")
async def test_a_stream_has_these_bytes(ask, backend):
    backend.script = say_everything
    data = await ask(stream=True)
    assert data.decode() == GOLDEN.read_text()


@pytest.mark.usefixtures("counted_ids")
async def test_one_object_has_thinking_text_and_calls(ask, backend):
    backend.script = say_everything
    assert json.loads(await ask()) == {
        "type": "message",
        "id": "msg_000000000000000000000002",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "signature-1"},
            {"type": "text", "text": "so on"},
            {
                "type": "tool_use",
                "id": "call_00000000",
                "name": "f",
                "input": {"b": 1, "a": ["é", None]},
            },
            {"type": "tool_use", "id": "call_11111111", "name": "g", "input": {}},
            {"type": "text", "text": "bye"},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_an_empty_answer_has_an_empty_list_as_its_content(ask, backend, stream):
    backend.script = lambda job: job.start().end()
    data = await ask(stream=stream)
    if not stream:
        assert json.loads(data)["content"] == []
        return
    assert [type(event) for event in events(data)] == [
        anthropic.MessageStart,
        anthropic.Ping,
        anthropic.MessageDeltaEvent,
        anthropic.MessageStop,
    ]


async def test_a_failure_in_the_middle_is_an_error_event(ask, backend):
    backend.script = lambda job: job.start().send("a").fail(WorkerDied("killed"))
    *_, error = events(await ask(stream=True))
    assert isinstance(error, anthropic.ErrorResponse)
    assert (error.error.type, error.error.message) == ("api_error", "killed")


async def test_an_error_in_the_middle_has_the_id_of_the_request(session, url, backend):
    backend.script = lambda job: job.start().send("a").fail(Busy())
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with session.post(f"{url}/v1/messages", json=body | {"stream": True}) as response:
        *_, error = events(await response.read())
        assert error.request_id == response.headers["Request-Id"]
        assert error.error.type == "overloaded_error"


@pytest.mark.parametrize(
    ("finish", "calls", "expected"),
    [
        (("stop", ""), [], ("end_turn", None)),
        (("stop", "<end>"), [], ("end_turn", None)),  # the model's own stop string
        (("stop", "STOP"), [], ("stop_sequence", "STOP")),
        (("stop", ""), CALLS, ("tool_use", None)),
        (("length", ""), [], ("max_tokens", None)),
        (("length", ""), CALLS, ("max_tokens", None)),
    ],
)
def test_reasons_to_stop(finish, calls, expected):
    reason, stop_string = finish
    answer = FinalAnswer(
        finish=Finish(reason, Usage(), [], stop_string=stop_string),
        content=AnswerContent(tool_calls=calls),
        has_calls=bool(calls),
    )
    writer = AnthropicFormat("m", ["STOP", ""], "req")  # an empty one never matches

    message = msgspec.json.decode(writer.whole([answer]), type=anthropic.MessagesResponse)
    delta, _ = events(writer.last([answer]))

    assert (message.stop_reason, message.stop_sequence) == expected
    assert (delta.delta.stop_reason, delta.delta.stop_sequence) == expected


PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.text(min_size=1)),
        st.tuples(st.just("thinking"), st.text(min_size=1)),
        st.tuples(st.just("tool_calls"), st.lists(st.sampled_from(CALLS), min_size=1)),
    )
)


@given(PIECES)
def test_clients_accumulate_what_was_said(pieces):
    """As Anthropic's client does: one block at a time, each with the next index."""
    writer = AnthropicFormat("m", (), "req")
    data = writer.begin(Start(prompt=7, cached=3))
    for kind, value in pieces:
        data += (
            writer.text(value) if kind == "text" else writer.content(AnswerContent(**{kind: value}))
        )
    data += writer.last([FinalAnswer(finish=Finish("stop", Usage(), []))])

    start, ping, *middle, delta, stop = events(data)

    assert start.message.usage == anthropic.Usage(4, 0, 3, 0)
    assert (ping, stop) == (anthropic.Ping(), anthropic.MessageStop())
    assert delta.delta.stop_reason == "end_turn"
    assert _accumulated(middle) == _expected(pieces)


def _accumulated(found):
    blocks, is_open = [], False
    for event in found:
        match event:
            case anthropic.ContentBlockStart(index, block):
                assert (index, is_open) == (len(blocks), False)
                is_open = True
                blocks.append((type(block), getattr(block, "name", "")))
            case anthropic.ContentBlockDelta(index, anthropic.SignatureDelta(signature)):
                assert (index, blocks[-1][0]) == (len(blocks) - 1, anthropic.ThinkingBlock)
                assert signature
            case anthropic.ContentBlockDelta(index, piece):
                assert (index, is_open) == (len(blocks) - 1, True)
                kind, text = blocks[-1]
                blocks[-1] = (kind, text + getattr(piece, piece.__struct_fields__[0]))
            case anthropic.ContentBlockStop(index):
                assert (index, is_open) == (len(blocks) - 1, True)
                is_open = False
    assert not is_open
    return blocks


def _expected(pieces):
    blocks = []
    kinds = {"text": anthropic.TextBlock, "thinking": anthropic.ThinkingBlock}
    for kind, run in itertools.groupby(pieces, key=lambda piece: piece[0]):
        if kind in kinds:
            blocks.append((kinds[kind], "".join(text for _, text in run)))
            continue
        for call in itertools.chain.from_iterable(calls for _, calls in run):
            arguments = msgspec.json.encode(call.function.arguments).decode()
            blocks.append((anthropic.ToolUseBlock, call.function.name + arguments))
    return blocks
