"""Precedence of system prompts, stored messages and parameters; what a model cannot do."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.core.conversation import ChatFormatSpec, Message
from ollama_async.core.errors import BadRequest, LoadFailed
from ollama_async.gateway.job_builder import (
    _beginning,
    build_chat_job,
    build_generate_job,
    strip_thinking,
    target_of,
)
from ollama_async.gguf.summary import GgufSummary
from tests.unit.gateway.conftest import unpacked

STORED = [Message(role="user", content="q"), Message(role="assistant", content="a")]


@pytest.fixture
def model(catalog):
    """A model with a system prompt, two stored messages and parameters of its own."""
    return msgspec.structs.replace(
        catalog.find("m"),
        system="model's",
        messages=STORED,
        parameters={"temperature": 0.1, "top_k": 5, "num_ctx": 2048},
    )


ASKED = Message(role="user", content="p")


@pytest.fixture
def able(catalog):
    """A model that can do everything."""
    can = ("completion", "tools", "thinking", "insert")
    return msgspec.structs.replace(catalog.find("m"), capabilities=can)


def messages_of(job) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in job.task.prompt.messages]


def generate(model, **fields):
    request = GenerateRequest(model="m", prompt="p", **fields)
    return unpacked(build_generate_job(request, model, "client"))


def chat(model, *messages: Message):
    request = ChatRequest(model="m", messages=list(messages))
    return unpacked(build_chat_job(request, model, "client"))


def test_generate_puts_the_models_messages_between_system_and_prompt(model):
    assert messages_of(generate(model)) == [
        ("system", "model's"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "p"),
    ]


def test_a_requests_system_prompt_replaces_the_models(model):
    assert messages_of(generate(model, system="mine"))[0] == ("system", "mine")


def test_a_context_replaces_the_models_messages(model):
    job = generate(model, context=[1])
    assert messages_of(job) == [("system", "model's"), ("user", "p")]


def test_chat_puts_the_models_system_prompt_first_and_its_messages_next(model):
    job = chat(model, Message(role="user", content="p"))
    assert messages_of(job) == [
        ("system", "model's"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "p"),
    ]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_chats_own_system_prompt_replaces_the_models(model, role):
    job = chat(model, Message(role=role, content="mine"), Message(role="user", content="p"))
    assert messages_of(job) == [("user", "q"), ("assistant", "a"), (role, "mine"), ("user", "p")]


def test_a_requests_options_win_key_by_key(model):
    job = generate(model, options={"top_k": 7})
    sampling = job.task.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.1, 7, 0.9)
    assert (job.load_options.num_ctx, job.task.num_ctx) == (2048, 2048)


def test_a_job_has_the_most_tokens_of_its_answer(model):
    limited = msgspec.structs.replace(model, parameters={"num_predict": 7})
    asked = ChatRequest(model="m", messages=[ASKED], options={"num_predict": 3})
    shown = GenerateRequest(model="m", prompt="p", debug_render_only=True)
    assert generate(model).num_predict == -1
    assert generate(limited).num_predict == 7
    assert build_chat_job(asked, limited, "client").num_predict == 3
    assert build_generate_job(shown, limited, "client").num_predict == -1, "a prompt is no answer"


def test_an_embedding_model_can_neither_generate_nor_chat(model):
    embedding = msgspec.structs.replace(model, capabilities=("embedding",))
    with pytest.raises(BadRequest, match=r'^"M" does not support generate$'):
        build_generate_job(GenerateRequest(model="M", prompt="p"), embedding, "client")
    with pytest.raises(BadRequest, match=r'^"M" does not support chat$'):
        build_chat_job(ChatRequest(model="M"), embedding, "client")


def test_a_target_has_the_facts_that_the_queue_needs(model):
    target = target_of(model)
    assert (target.key, target.name, target.engine) == ("scripted:m", "m:latest", "scripted")
    assert target.details["format"] == "scripted"


def test_an_adapter_takes_memory_with_its_model(model):
    summary = GgufSummary(weights_bytes=100)
    adapted = msgspec.structs.replace(model, summary=summary, adapters=("/a",), adapter_bytes=7)
    target = target_of(adapted)
    assert (target.weights_bytes, target.adapters) == (107, ("/a",))


@pytest.fixture
def seeing(model):
    """A model with a projector."""
    return msgspec.structs.replace(
        model,
        capabilities=("completion", "vision"),
        projectors=("/mmproj", "/second"),
        projector_bytes=9,
        summary=GgufSummary(weights_bytes=100),
    )


def test_a_projector_takes_memory_with_its_model(seeing):
    target = target_of(seeing)
    assert (target.weights_bytes, target.projector) == (109, "/mmproj")


def test_images_go_to_the_question(seeing):
    assert generate(seeing, images=[b"a"]).task.prompt.messages[-1].images == [b"a"]
    job = chat(seeing, Message("user", "q", images=[b"a"]), Message("user", images=[b"b", b"c"]))
    assert [each.images for each in job.task.prompt.messages[-2:]] == [[b"a"], [b"b", b"c"]]


def test_a_raw_prompt_has_images_of_its_own(seeing):
    prompt = generate(seeing, raw=True, images=[b"a", b"b"]).task.prompt
    assert (prompt.raw, [each.images for each in prompt.messages]) == ("p", [[b"a", b"b"]])


def test_a_context_has_room_for_an_image(seeing, model):
    job = generate(seeing, options={"num_ctx": 100})
    assert (job.task.num_ctx, job.load_options.num_ctx) == (2048, 2048)
    job = generate(model, options={"num_ctx": 100})
    assert (job.task.num_ctx, job.load_options.num_ctx) == (100, 100)
    assert generate(seeing, options={"num_ctx": 5000}).task.num_ctx == 5000


def test_an_old_projector_cannot_be_used(seeing):
    old = msgspec.structs.replace(seeing, projector_bytes=0)
    assert target_of(old).projector == ""
    assert generate(old), "text is no problem"
    with pytest.raises(BadRequest, match="the projector of 'm:latest' is not a GGUF file"):
        generate(old, images=[b"a"])


def test_a_thinking_model_thinks_by_default(able):
    assert generate(able).task.prompt.think is True
    assert chat(able, ASKED).task.prompt.think is True
    assert generate(able, think=False).task.prompt.think is False
    assert generate(able, think="low").task.prompt.think == "low"


def test_other_models_get_no_think_value(model):
    assert generate(model).task.prompt.think is None
    build_generate_job(GenerateRequest(model="m", prompt="p", think=False), model, "client")
    assert generate(model, think=False).task.prompt.think is False


def test_tools_are_passed_on_unchanged(able):
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    request = ChatRequest(model="m", messages=[ASKED], tools=tools)
    build_chat_job(request, able, "client")
    assert unpacked(build_chat_job(request, able, "client")).task.prompt.tools == tools


def test_a_suffix_leaves_only_the_prompt_and_the_suffix(able):
    prompt = generate(able, suffix="after", system="s").task.prompt
    assert messages_of(generate(able, suffix="after")) == [("user", "p")]
    assert prompt.suffix == "after"


def test_a_prompt_has_the_models_chat_format(able):
    model = msgspec.structs.replace(able, template="t", renderer="r", parser="p")
    spec = chat(model, ASKED).task.prompt.chat_format
    count = able.summary.parameter_count
    assert spec == ChatFormatSpec("t", "r", "p", "m:latest", "scripted", count)


def test_a_requests_template_replaces_all_others(able):
    model = msgspec.structs.replace(able, template="t", renderer="r", parser="p")
    spec = generate(model, template="mine").task.prompt.chat_format
    assert spec == msgspec.structs.replace(model.chat_format, request_template="mine")


@pytest.mark.parametrize(
    ("wished", "format_"),
    [(None, None), ("", None), ("json", "json"), ({"type": "object"}, {"type": "object"})],
)
def test_the_format_of_the_answer_is_passed_on(model, wished, format_):
    build_generate_job(GenerateRequest(model="m", prompt="p", format=wished), model, "client")
    assert generate(model, format=wished).task.format == format_


def test_some_models_do_not_see_their_earlier_thinking(model):
    sent = [
        Message(role="assistant", content="<think>a</think>\n\nb<think>c</think>d<think>e"),
        Message(role="user", content="<think>u</think>"),
        Message(role="assistant", content="<think>new</think>"),
    ]
    details = msgspec.structs.replace(model.details, family="qwen3")
    bare = msgspec.structs.replace(model, system="", messages=[])
    forgetful = msgspec.structs.replace(bare, details=details)
    named = msgspec.structs.replace(bare, name="deepseek-r1:8b")

    assert messages_of(chat(bare, *sent))[0][1] == sent[0].content
    for each in (forgetful, named):
        assert [text for _, text in messages_of(chat(each, *sent))] == [
            "bd<think>e",
            "<think>u</think>",
            "<think>new</think>",
        ]


def test_stripping_thinking_is_linear():
    """A pattern would look for the end anew at each of 200,000 beginnings."""
    messages = [Message(role="assistant", content="<think>" * 200_000), Message(role="user")]
    assert strip_thinking(messages) == messages


@pytest.mark.parametrize("prompt", ["", "hi"])
def test_a_model_that_cannot_be_run_is_not_sent_to_a_worker(model, prompt):
    broken = msgspec.structs.replace(
        model, summary=GgufSummary(missing_part="no vocabulary: it is gone")
    )
    with pytest.raises(LoadFailed) as caught:
        build_generate_job(GenerateRequest(model="m", prompt=prompt), broken, "client")
    assert caught.value.message == (
        "unable to load model 'm:latest': its file has no vocabulary: it is gone"
    )
    with pytest.raises(LoadFailed):
        chat(broken, ASKED)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=300),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_an_error_shows_how_the_json_of_a_value_begins(value):
    whole = json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    assert _beginning(value, 200)[:200] == whole[:200]


def test_a_prompt_knows_how_many_first_messages_are_the_models(model):
    """Nothing else may be shared between clients that share nothing."""

    def own(job):
        prompt = job.task.prompt
        return [message.content for message in prompt.messages[: prompt.model_messages]]

    assert own(generate(model)) == ["model's", "q", "a"]
    assert own(generate(model, system="mine")) == []
    assert own(generate(model, context=[1])) == ["model's"]
    assert own(chat(model, ASKED)) == ["model's", "q", "a"]
    assert own(chat(model, Message("system", "mine"), ASKED)) == ["q", "a"]
