"""Precedence of system prompts, stored turns and parameters; what a model cannot do."""

from __future__ import annotations

import msgspec
import pytest

from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.conversation import Message
from ollama_async.errors import BadRequest
from ollama_async.gateway.asking import (
    chat_job,
    check_chat,
    check_generate,
    generate_job,
    target_of,
)
from ollama_async.gateway.finding import Finder
from ollama_async.models.catalog import Catalog
from ollama_async.models.facts import ModelFacts

STORED = [Message(role="user", content="q"), Message(role="assistant", content="a")]


@pytest.fixture
def model(catalog):
    """A model with a system prompt, two stored turns and parameters of its own."""
    return msgspec.structs.replace(
        catalog.find("m"),
        system="model's",
        messages=STORED,
        parameters={"temperature": 0.1, "top_k": 5, "num_ctx": 2048},
    )


def turns(job) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in job.inference.prompt.messages]


def generate(model, **fields):
    return generate_job(GenerateRequest(model="m", prompt="p", **fields), model, "client")


def chat(model, *messages: Message):
    return chat_job(ChatRequest(model="m", messages=list(messages)), model, "client")


def test_generate_puts_the_models_turns_between_system_and_prompt(model):
    assert turns(generate(model)) == [
        ("system", "model's"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "p"),
    ]


def test_a_requests_system_prompt_replaces_the_models(model):
    assert turns(generate(model, system="mine"))[0] == ("system", "mine")


def test_a_context_replaces_the_models_turns(model):
    job = generate(model, context=[1])
    assert turns(job) == [("system", "model's"), ("user", "p")]


def test_chat_puts_the_models_system_prompt_first_and_its_turns_next(model):
    job = chat(model, Message(role="user", content="p"))
    assert turns(job) == [
        ("system", "model's"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "p"),
    ]


def test_chat_that_begins_with_a_system_prompt_goes_without_the_models(model):
    job = chat(model, Message(role="system", content="mine"), Message(role="user", content="p"))
    assert turns(job) == [("user", "q"), ("assistant", "a"), ("system", "mine"), ("user", "p")]


def test_a_requests_options_win_key_by_key(model):
    job = generate(model, options={"top_k": 7})
    sampling = job.inference.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.1, 7, 0.9)
    assert (job.needs.num_ctx, job.inference.num_ctx) == (2048, 2048)


def test_an_embedding_model_can_neither_generate_nor_chat(model):
    embedding = msgspec.structs.replace(model, capabilities=("embedding",))
    with pytest.raises(BadRequest, match=r'^"M" does not support generate$'):
        check_generate(GenerateRequest(model="M", prompt="p"), embedding)
    with pytest.raises(BadRequest, match=r'^"M" does not support chat$'):
        check_chat(ChatRequest(model="M"), embedding)


def test_a_target_is_what_the_queue_needs_to_know(model):
    target = target_of(model)
    assert (target.key, target.name, target.engine) == ("scripted:m", "m:latest", "scripted")
    assert target.details["format"] == "scripted"


def test_an_adapter_takes_memory_with_its_model(model):
    facts = ModelFacts(weights_bytes=100)
    adapted = msgspec.structs.replace(model, facts=facts, adapters=("/a",), adapter_bytes=7)
    target = target_of(adapted)
    assert (target.weights_bytes, target.adapters) == (107, ("/a",))


async def test_a_go_template_is_warned_of_once(model, caplog):
    class OneModel(Catalog):
        def find_cached(self, _text: str):
            return msgspec.structs.replace(model, template="{{ .Prompt }}", digest="f" * 64)

    finder = Finder(OneModel(store=None))
    for _ in range(3):
        await finder.find("m")

    (record,) = caplog.records
    assert "Go TEMPLATE" in record.getMessage()
