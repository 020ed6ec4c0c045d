"""The bytes of OpenAI's streams, and what holds for every answer and for every request."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import encode, openai
from ollama_async.api.decode import decode
from ollama_async.core.conversation import (
    Logprobs,
    Thought,
    TokenLogprob,
    ToolCall,
    ToolFunction,
    Usage,
)
from ollama_async.core.errors import ServerError, WorkerDied
from ollama_async.core.scripted_models import Script
from ollama_async.gateway.handlers import openai as handlers
from ollama_async.gateway.response_formats import FinalAnswer, content_of, write_deltas
from ollama_async.gateway.response_formats import openai as formats
from ollama_async.gateway.response_formats.openai import OpenAIChatFormat, OpenAICompletionFormat
from ollama_async.queue.backend import Finish, Start
from ollama_async.store.catalog import Catalog
from tests.json_values import JSON

GOLDEN = Path(__file__).parents[2] / "fixtures" / "streams"
CALLS = [
    ToolCall(ToolFunction("f", {"b": 1, "a": ["é", None]}, 0), "call_00000000"),
    ToolCall(ToolFunction("g", {}, 1), "call_11111111"),
]
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def catalog(store) -> Catalog:
    return Catalog(store, {"m": Script(capabilities=["tools", "thinking"])})


@pytest.fixture
def ask(session, url, monkeypatch):
    """``await ask(path, **fields)`` → the text of a stream, whose ids and times are fixed."""
    numbers = itertools.count(1)
    monkeypatch.setattr(formats, "_new_id", lambda prefix: f"{prefix}{next(numbers):024}")
    monkeypatch.setattr(formats, "_now", lambda: 1_800_000_000)

    async def ask(path, **fields):
        body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
        async with session.post(url + path, json=body | fields) as response:
            assert response.status == 200
            return await response.text()

    return ask


def say_everything(job):
    job.start()
    job.part(Thought("h"), Thought("m"))
    job.send('so "', "on\n")
    job.part(*CALLS)
    job.send("bye")
    job.end()


def say_logprobs(job):
    job.start()
    job.part(Logprobs([TokenLogprob(b"a", -0.5, [(b"a", -0.5), (b"\xc3", -1.5)])]))
    job.send("a")
    job.end("length")


@pytest.mark.parametrize(
    ("name", "script", "path", "fields"),
    [
        ("openai-chat", say_everything, "/v1/chat/completions", CHAT),
        (
            "openai-chat-logprobs",
            say_logprobs,
            "/v1/chat/completions",
            {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2},
        ),
        (
            "openai-chat-error",
            lambda job: job.start().send("a").fail(WorkerDied("gone")),
            "/v1/chat/completions",
            CHAT,
        ),
        (
            "openai-completions",
            lambda job: job.start().send("o", "k").end(),
            "/v1/completions",
            {"prompt": ["a", "b"], "echo": True},
        ),
        (
            "openai-completions-logprobs",
            say_logprobs,
            "/v1/completions",
            {"prompt": "a", "logprobs": 2},
        ),
    ],
)
async def test_a_stream_has_these_bytes(ask, backend, name, script, path, fields):
    backend.script = script

    text = await ask(path, **fields)

    assert text == (GOLDEN / f"{name}.txt").read_text()


# -- every answer ---------------------------------------------------------------------------------

TOKEN = st.builds(TokenLogprob, st.binary(max_size=4), st.floats(-50, 0), st.just([]))
PART = (
    st.text(min_size=1)
    | st.builds(Thought, st.text(min_size=1))
    | st.builds(Logprobs, st.lists(TOKEN, min_size=1, max_size=2))
    | st.sampled_from(CALLS)
)


def events(data: bytes, kind):
    """Each event, which has the declared shape."""
    *blocks, end = data.split(b"\n\n")
    assert end == b""
    decoder = msgspec.json.Decoder(kind)
    return [
        decoder.decode(block.removeprefix(b"data: ")) for block in blocks if b"[DONE]" not in block
    ]


@given(st.lists(st.lists(PART, max_size=6), min_size=1, max_size=3), st.text(max_size=5))
def test_streamed_and_whole_answers_say_the_same(answers, model):
    response = OpenAIChatFormat(model, choices=len(answers), includes_usage=True)
    finals = [
        FinalAnswer(finish=Finish("stop", Usage(prompt=3, answer=2), []), content=content_of(each))
        for each in answers
    ]
    data = [response.begin(Start())]
    for index, (deltas, final) in enumerate(zip(answers, finals, strict=True)):
        choice = response.choice(index) if index else response
        data += [*write_deltas(choice, deltas), choice.ended(final)]
    chunks = events(b"".join([*data, response.last(finals)]), openai.ChatCompletionChunk)
    whole = msgspec.json.decode(response.whole(finals), type=openai.ChatCompletion)

    assert chunks[-1].usage == whole.usage
    assert {chunk.model for chunk in chunks} == {whole.model} == {model}
    for choice in whole.choices:
        own = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        joined = "".join(each.delta.content or "" for each in own)
        assert joined == choice.message.content
        thought = "".join(each.delta.reasoning or "" for each in own)
        assert thought == (choice.message.reasoning or "")
        calls = [call for each in own for call in each.delta.tool_calls or ()]
        assert calls == (choice.message.tool_calls or [])
        logprobs = [token for each in own if each.logprobs for token in each.logprobs.content]
        assert logprobs == (choice.logprobs.content if choice.logprobs else [])


@given(st.lists(PART, max_size=8))
def test_streamed_and_whole_completions_say_the_same(deltas):
    response = OpenAICompletionFormat("m", echoes=["p"], per_prompt=1, includes_usage=False)
    final = FinalAnswer(finish=Finish("stop", Usage(), []), content=content_of(deltas))
    data = [response.begin(Start()), *write_deltas(response, deltas), response.ended(final)]
    chunks = events(b"".join(data), openai.Completion)
    (whole,) = msgspec.json.decode(response.whole([final]), type=openai.Completion).choices

    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert sorted(text) == sorted(whole.text)
    logprobs = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    expected = whole.logprobs or openai.CompletionLogprobs([], [], [], [])
    for name in openai.CompletionLogprobs.__struct_fields__:
        assert [each for part in logprobs for each in getattr(part, name)] == getattr(
            expected, name
        )


@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_a_whole_answer_with_many_logprobs_is_encoded_in_small_pieces(monkeypatch, kind):
    sizes = []

    def to_json(value, real=encode.to_json):
        data = real(value)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(encode, "to_json", to_json)
    top = [(b" token %d" % number, -0.1 * number) for number in range(20)]
    deltas = [Logprobs([TokenLogprob("é".encode(), -0.5, top)]), "é"] * 1000
    final = FinalAnswer(finish=Finish("stop", Usage(), []), content=content_of(deltas))
    if kind == "chat":
        response = OpenAIChatFormat("m", choices=3, includes_usage=False)
        shape = openai.ChatCompletion
    else:
        response = OpenAICompletionFormat("m", echoes=[""] * 3, per_prompt=1, includes_usage=False)
        shape = openai.Completion

    data = response.whole([final] * 3)

    assert len(data) > 1_000_000
    assert max(sizes) < 100_000
    choices = msgspec.json.decode(data, type=shape).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    for choice in choices:
        if kind == "chat":
            tokens = choice.logprobs.content
            assert len(tokens) == 1000
            assert (tokens[999].token, len(tokens[999].top_logprobs)) == ("é", 20)
        else:
            logprobs = choice.logprobs
            assert logprobs.tokens == ["é"] * 1000
            assert logprobs.token_logprobs == [-0.5] * 1000
            assert [len(each) for each in logprobs.top_logprobs] == [21] * 1000
            assert logprobs.text_offset == list(range(1000))


# -- every request --------------------------------------------------------------------------------


def request_of(kind):
    """Bodies with some of the fields of ``kind``, whose values are anything."""
    names = [each.encode_name for each in msgspec.structs.fields(kind)]
    return st.dictionaries(st.sampled_from(names), JSON, max_size=6)


def part_of_chat(value):
    return st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.lists(value, min_size=1, max_size=3)}
    )


FIELD = JSON | st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["text", "image_url", "input_audio", "refusal", "x"]),
            "text": JSON,
            "image_url": JSON,
            "input_audio": JSON,
        },
    )
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "function", "x"]) | JSON,
        "content": FIELD,
        "name": JSON,
        "tool_calls": JSON
        | st.lists(
            st.fixed_dictionaries(
                {
                    "function": JSON
                    | st.fixed_dictionaries({"arguments": JSON | JSON.map(json.dumps)})
                }
            )
        ),
        "tool_call_id": JSON,
        "function_call": JSON,
        "reasoning": JSON,
    },
)
BODIES = [
    (openai.ChatCompletionRequest, handlers._translate_chat),
    (openai.CompletionRequest, handlers._translate_completion),
]


def translate(kind, function, body):
    """A call, or an error that is the client's."""
    try:
        call = function(decode(json.dumps(body).encode(), kind))
    except ServerError as error:
        assert 400 <= error.status < 500, error  # noqa: PT017
        return
    assert 1 <= len(call.requests) <= handlers.CHOICES_LIMIT


@given(st.data())
def test_any_fields_give_a_call_or_a_client_error(data):
    for kind, function in BODIES:
        translate(kind, function, data.draw(request_of(kind)))


@given(part_of_chat(MESSAGE))
def test_any_messages_give_a_call_or_a_client_error(body):
    translate(*BODIES[0], body)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/chat/completions", BODIES[0][0]), ("/v1/completions", BODIES[1][0])]
)
async def test_no_field_of_any_type_is_a_500(session, url, backend, path, kind):
    backend.script = lambda job: job.start().end()
    valid = {"model": "m", "prompt": "x", **CHAT}
    values = [
        None,
        True,
        0,
        -1,
        1.5,
        2**70,
        "x",
        "\ud800",
        [],
        [[]],
        [None],
        {},
        {"a": {}},
        "x" * 70_000,
    ]
    for field in msgspec.structs.fields(kind):
        for value in values:
            body = valid | {field.encode_name: value}
            async with session.post(url + path, data=json.dumps(body).encode()) as response:
                text = await response.text()
                is_ollamas = field.name == "options"  # a wrong type there is a 500 in Ollama
                assert response.status < (501 if is_ollamas else 500), (body, text)
                assert not (response.status == 400 and "message" not in text)
