"""The objects that Ollama's formats write."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import encode
from ollama_async.api.ollama import ChatResponse
from ollama_async.gateway.response_formats.ollama import OllamaChatFormat, OllamaGenerateFormat


@given(st.text(), st.text())
def test_a_line_is_one_json_object_with_the_text(model, text):
    line = OllamaGenerateFormat(model).text(text)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value = json.loads(line)
    assert list(value) == ["model", "created_at", "response", "done"]
    assert (value["model"], value["response"], value["done"]) == (model, text, False)
    chat = json.loads(OllamaChatFormat(model).text(text))
    assert list(chat) == ["model", "created_at", "message", "done"]
    assert chat["message"] == {"role": "assistant", "content": text}


def test_a_fast_line_equals_an_encoded_struct():
    line = OllamaChatFormat("m").text("x")
    value = msgspec.json.decode(line, type=ChatResponse)
    assert encode.to_line(value) == line
