"""Anthropic's messages in Ollama's terms, block by block."""

# one block per line reads as a table
from __future__ import annotations

import base64

import msgspec
import pytest

from ollama_async.api.anthropic import MessagesRequest
from ollama_async.core.conversation import Message, ToolCall, ToolFunction
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.handlers.anthropic_messages import read_messages


def read(messages, system=None):
    params = msgspec.convert({"messages": messages, "system": system}, MessagesRequest)
    return [
        msgspec.convert(message, Message, from_attributes=True)
        for message in read_messages(params.system, params.messages)
    ]


PNG = base64.b64encode(b"png").decode()


def image(data=PNG, kind="base64"):
    return {"type": "image", "source": {"type": kind, "media_type": "image/png", "data": data}}


def text(text, **more):
    return {"type": "text", "text": text, **more}


def result(**fields):
    return {"type": "tool_result", "tool_use_id": "toolu_9", **fields}


def document(**source):
    return {"type": "document", "source": source}


def test_turns_stay_in_their_order_and_roles():
    turns = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "c"},
        {"role": "assistant", "content": "prefill "},
    ]
    assert read(turns) == [
        Message("user", "a"),
        Message("user", "b"),
        Message("system", "c"),
        Message("assistant", "prefill "),
    ]


@pytest.mark.parametrize(
    ("system", "shown"),
    [
        ("be brief", "be brief"),
        ([text("a", cache_control={"type": "ephemeral"}), text("b")], "ab"),
        ([], ""),
        (None, ""),
        ("", ""),
    ],
)
def test_the_system_prompt_is_a_text_or_blocks(system, shown):
    expected = [Message("system", shown)] * bool(shown) + [Message("user", "hi")]
    assert read([{"role": "user", "content": "hi"}], system) == expected


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([text("a "), text("b", citations=None)], [Message("user", "a b")]),
        ([text("look"), image(), image()], [Message("user", "look", images=[b"png", b"png"])]),
        ([image(base64.encodebytes(bytes(99)).decode())], [Message("user", images=[bytes(99)])]),
        (
            [
                {
                    **document(type="text", media_type="text/plain", data="D"),
                    "title": "T",
                    "context": "C",
                },
                text("?"),
            ],
            [Message("user", "T\nC\nD\n\n?")],
        ),
        (
            [document(type="content", content=[text("D"), image()])],
            [Message("user", "D\n\n", images=[b"png"])],
        ),
        ([document(type="content", content="D")], [Message("user", "D\n\n")]),
        (
            [{"type": "search_result", "source": "s", "title": "t", "content": [text("x")]}],
            [Message("user", "t\ns\nx\n\n")],
        ),
        ([result(content="r")], [Message("tool", "r", tool_call_id="toolu_9")]),
        ([result()], [Message("tool", "", tool_call_id="toolu_9")]),
        (
            [text("next"), result(content="r"), result(content="s")],
            [
                Message("tool", "r", tool_call_id="toolu_9"),
                Message("tool", "s", tool_call_id="toolu_9"),
                Message("user", "next"),
            ],
        ),
        (
            [result(content=[text("r"), image(), document(type="content", content="D")])],
            [Message("tool", "rD\n\n", images=[b"png"], tool_call_id="toolu_9")],
        ),
        (
            [result(content="no such city", is_error=True)],
            [Message("tool", "Error: no such city", tool_call_id="toolu_9")],
        ),
    ],
)
def test_blocks_of_users(blocks, expected):
    assert read([{"role": "user", "content": blocks}]) == expected


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": None}}
CALL = ToolCall(ToolFunction("f", {"b": 1, "a": None}), "toolu_1")


def test_thinking_text_and_calls_are_one_message():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "any"},
        {"type": "redacted_thinking", "data": "only Anthropic can read it"},
        text("so"),
        USE,
        {**USE, "id": "toolu_2", "cache_control": None},
    ]
    second = ToolCall(ToolFunction("f", {"b": 1, "a": None}, index=1), "toolu_2")
    message = Message("assistant", "so", thinking="hm", tool_calls=[CALL, second])
    assert read([{"role": "assistant", "content": blocks}]) == [message]


def test_results_have_the_names_of_their_calls():
    answer = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "4"}
    turns = [{"role": "assistant", "content": [USE]}, {"role": "user", "content": [answer]}]
    assert read(turns)[1] == Message("tool", "4", tool_name="f", tool_call_id="toolu_1")


def test_tools_that_another_server_ran_stay_in_their_place():
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    hits = [{"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "x"}]
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": hits}
    failed = {**found, "content": {"type": "web_search_tool_result_error", "error_code": "e"}}

    turns = [{"role": "assistant", "content": [text("a"), use, found, failed, text("b")]}]

    call = ToolCall(ToolFunction("web_search"), "srvtoolu_1")
    of_call = {"tool_name": "web_search", "tool_call_id": "srvtoolu_1"}
    assert read(turns) == [
        Message("assistant", "a", tool_calls=[call]),
        Message("tool", "- T: u\n", **of_call),
        Message("tool", "web_search_tool_result_error: e", **of_call),
        Message("assistant", "b"),
    ]


@pytest.mark.parametrize(
    "content", ["", [], [text("")], [{"type": "redacted_thinking", "data": "x"}]]
)
def test_messages_without_content_are_left_out_unless_nothing_remains(content):
    empty = {"role": "user", "content": content}
    assert read([empty, {"role": "user", "content": "a"}]) == [Message("user", "a")]
    with pytest.raises(BadRequest, match="messages: there is no content"):
        read([empty], "be brief")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (image(kind="url"), "invalid image source type: url. Only base64 images are supported."),
        (image(kind="file"), "invalid image source type: file. Only base64 images are supported."),
        (image("a*b"), "invalid base64 image data: illegal base64 data at input byte 1"),
        (image(None), "invalid image source: no data"),
        ({**USE, "id": ""}, "tool_use block missing required 'id' field"),
        ({**USE, "name": ""}, "tool_use block missing required 'name' field"),
        (
            document(type="base64", media_type="application/pdf", data="x"),
            "invalid document source: application/pdf. Only text documents are supported.",
        ),
        (
            document(type="url", url="http://x"),
            "invalid document source: url. Only text documents are supported.",
        ),
        (
            result(content=[image(kind="url")]),
            "invalid image source type: url. Only base64 images are supported.",
        ),
    ],
)
def test_what_no_model_can_read_is_refused(block, message):
    with pytest.raises(BadRequest) as refused:
        read([{"role": "user", "content": [block]}])
    assert refused.value.message == message
