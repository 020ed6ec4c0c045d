"""OpenAI's requests, decoded on the fast path and as Go reads them."""

from __future__ import annotations

import json

import pytest

from ollama_async.api.decode import decode
from ollama_async.api.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    ContentPart,
    ImageUrl,
    NamedFunction,
    ToolChoice,
)
from ollama_async.core.errors import BadRequest

TEXT = {"type": "text", "text": "a"}
NAMED = {"type": "function", "function": {"name": "f"}}


def read(kind=ChatCompletionRequest, **fields):
    return decode(json.dumps(fields).encode(), kind)


def wrong(found, name, kind):
    field = f"Go struct field ChatCompletionRequest.{name}"
    return f"json: cannot unmarshal {found} into {field} of type {kind}"


@pytest.mark.parametrize("unknown", [{}, {"unheard_of": 1}], ids=["fast", "as Go"])
@pytest.mark.parametrize(
    ("name", "value", "read_as"),
    [
        ("stop", "x", "x"),
        ("stop", ["x", "y"], ["x", "y"]),
        ("stop", None, None),
        ("temperature", 1, 1.0),
        ("temperature", 0.5, 0.5),
        ("logit_bias", {"5": -100}, {"5": -100.0}),
        ("tool_choice", "auto", "auto"),
        ("tool_choice", NAMED, ToolChoice(type="function", function=NamedFunction(name="f"))),
    ],
)
def test_both_ways_of_decoding_agree(unknown, name, value, read_as):
    found = getattr(read(**{name: value}, **unknown), name)

    assert found == read_as
    assert type(found) is type(read_as)


@pytest.mark.parametrize("unknown", [{}, {"unheard_of": 1}], ids=["fast", "as Go"])
def test_content_is_a_text_or_parts_or_nothing(unknown):
    contents = ["hi", None, [TEXT, {"type": "image_url", "image_url": {"url": "data:"}}]]

    messages = read(messages=[{"role": "USER", "content": each} for each in contents], **unknown)

    assert [message.content for message in messages.messages] == [
        "hi",
        None,
        [
            ContentPart(type="text", text="a"),
            ContentPart(type="image_url", image_url=ImageUrl(url="data:")),
        ],
    ]
    assert {message.role for message in messages.messages} == {"user"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"messages": [{"content": 5}]}, "invalid message content type: float64"),
        ({"messages": [{"content": {}}]}, "invalid message content type: map[string]interface {}"),
        ({"messages": 5}, wrong("number", "messages", "[]openai.Message")),
        ({"messages": [5]}, wrong("number", "messages", "openai.Message")),
        ({"temperature": "hot"}, wrong("string", "temperature", "float64")),
        ({"temperature": True}, wrong("bool", "temperature", "float64")),
        ({"seed": 1.5}, wrong("number 1.5", "seed", "int")),
        ({"stop": [1]}, wrong("number", "stop", "string")),
        ({"tools": [{"function": {"name": 1}}]}, wrong("number", "tools.function.name", "string")),
        (
            {"think": "hard"},
            'invalid think value: "hard" (must be "high", "medium", "low", "max", true, or false)',
        ),
        ({"keep_alive": "5"}, 'time: missing unit in duration "5"'),
    ],
)
def test_wrong_types_have_gos_texts(fields, text):
    with pytest.raises(BadRequest) as caught:
        read(**fields)

    assert caught.value.message == text


def test_a_completion_takes_texts_and_token_ids():
    for prompt in ("hi", ["a", "b"], [1, 2], [[1], [2]], None):
        assert read(CompletionRequest, prompt=prompt).prompt == prompt
