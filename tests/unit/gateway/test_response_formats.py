"""The objects that Ollama's formats write."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import encode, openai
from ollama_async.api.ollama import ChatResponse
from ollama_async.core.conversation import TokenLogprob
from ollama_async.gateway.response_formats.logprobs import logprob_json
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


LOGPROB = st.floats(-9999, 0)
TOP = st.lists(st.tuples(st.binary(max_size=100), LOGPROB), max_size=20)


@given(st.builds(TokenLogprob, st.binary(max_size=100), LOGPROB, TOP))
def test_logprobs_are_written_as_their_structs_would_be(logprob):
    def shown(token, value):
        return token.decode(errors="replace"), value, list(token)

    struct = openai.Logprob(
        *shown(logprob.token, logprob.logprob),
        top_logprobs=[openai.TokenLogprob(*shown(*each)) for each in logprob.top],
    )
    data = encode.to_json(logprob_json(logprob, lists_none=True))
    assert data == encode.to_json(struct)
    value = json.loads(encode.to_json(logprob_json(logprob, lists_none=False)))
    assert ("top_logprobs" in value) == bool(logprob.top)
    assert {"top_logprobs": [], **value} == json.loads(data)
